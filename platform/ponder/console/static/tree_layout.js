/* Places the nodes of a search tree: depth to the right, leaves below each other, parents in the middle of theirs. */
"use strict";

const ponderTree = { WIDTH: 216, HEIGHT: 46, COLUMN: 268, ROW: 58 };

/* Returns {children, hidden, at: [{x, y}], order, width, height}. Twins of a sibling and nodes below a folded one have
   no place; `hidden` counts those below each folded node. Loops instead of recursion, because a chain may be long. */
ponderTree.layout = (nodes, folded) => {
  const children = nodes.map(() => []);
  for (let index = 1; index < nodes.length; index += 1) {
    if (nodes[index].twin === undefined) children[nodes[index].parent].push(index);
  }
  const at = new Array(nodes.length);
  const order = [];
  const waiting = [[0, 0]];
  while (waiting.length) {
    const [index, depth] = waiting.pop();
    at[index] = { x: depth * ponderTree.COLUMN, y: 0, depth };
    order.push(index);
    if (!folded.has(index)) for (const child of children[index].slice().reverse()) waiting.push([child, depth + 1]);
  }
  let height = 0;
  let width = 0;
  for (const index of order) {
    width = Math.max(width, at[index].x + ponderTree.WIDTH);
    if (folded.has(index) || !children[index].length) {
      at[index].y = height;
      height += ponderTree.ROW;
    }
  }
  for (const index of order.slice().reverse()) {
    const own = children[index];
    if (!folded.has(index) && own.length) at[index].y = (at[own[0]].y + at[own[own.length - 1]].y) / 2;
  }
  const below = nodes.map(() => 0);
  for (let index = nodes.length - 1; index > 0; index -= 1) {
    if (nodes[index].twin === undefined) below[nodes[index].parent] += below[index] + 1;
  }
  return { children, at, order, below, width, height: Math.max(height, ponderTree.ROW) };
};

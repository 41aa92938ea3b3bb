/* Draws a search tree as SVG. Only nodes in view have elements; from far away all of one colour are a single one. */
"use strict";

ponderTree.NAMES = {
  chosen: ["✓", "leads to the answer"], finished: ["•", "kept"], pruned: ["✗", "pruned"], cut: ["✂", "cut off"],
  forced: ["▸", "forced"], cancelled: ["⊘", "stopped early"], growing: ["…", "growing"], question: ["?", "a judge's question"],
};

ponderTree.Picture = class {
  static LEAST = 0.02;
  static MOST = 2.5;
  static FAR = 0.42;
  static READABLE = 0.55;

  constructor(svg) {
    this.svg = svg;
    this.stage = ponderTree.element("g", {}, svg);
    this.far = ponderTree.element("g", { class: "far-nodes" }, this.stage);
    this.edges = ponderTree.element("path", { class: "edge" }, this.stage);
    this.bestEdges = ponderTree.element("path", { class: "edge best" }, this.stage);
    this.drawn = new Map();
    this.folded = new Set();
    this.selected = null;
    this.colouring = "state";
    this.limit = Infinity;
    this.view = { x: 0, y: 0, scale: 1 };
    this.nodes = [];
    this.bands = [];
    this.isAsked = false;
  }

  show(nodes) {
    this.nodes = nodes;
    this.bands = ponderTree.bands(nodes);
    this.arrange();
  }

  arrange() {
    this.plan = ponderTree.layout(this.nodes, this.folded);
    this.stage.querySelectorAll("g.node").forEach((one) => one.remove());
    this.drawn.clear();
    this.isSketched = false;
    this.ask();
  }

  /* Draws everything at once for a look from far away: a path for each colour, which moves without being made again. */
  sketch() {
    if (this.isSketched) return;
    this.isSketched = true;
    const paths = new Map(), edges = [], best = [];
    const { WIDTH, HEIGHT } = ponderTree;
    for (const index of this.plan.order) {
      if (!this.isShown(index)) continue;
      const { x, y } = this.plan.at[index];
      const name = this.colour(index);
      if (!paths.has(name)) paths.set(name, []);
      paths.get(name).push(`M${x} ${y}h${WIDTH}v${HEIGHT}h-${WIDTH}z`);
      if (index === 0) continue;
      const parent = this.plan.at[this.nodes[index].parent];
      (this.nodes[index].best ? best : edges).push(`M${parent.x + WIDTH} ${parent.y + HEIGHT / 2}L${x} ${y + HEIGHT / 2}`);
    }
    this.far.replaceChildren(...[...paths].map(([name, parts]) => ponderTree.element("path", { class: `stripe ${name}`, d: parts.join("") })));
    this.edges.setAttribute("d", edges.join(""));
    this.bestEdges.setAttribute("d", best.join(""));
    this.drawn.forEach((group) => group.remove());
    this.drawn.clear();
  }

  /* Returns the node at a point of the screen. */
  hit(x, y) {
    const { view, plan } = this;
    const [left, top] = [(x - view.x) / view.scale, (y - view.y) / view.scale];
    const isIn = ({ x: from, y: upper }) => left >= from && left <= from + ponderTree.WIDTH && top >= upper && top <= upper + ponderTree.HEIGHT;
    return plan.order.find((index) => this.isShown(index) && isIn(plan.at[index]));
  }

  /* Draws in the next frame, however many things change before it. */
  ask() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => { this.isAsked = false; this.draw(); });
  }

  box() {
    const { width, height } = this.size ?? (this.size = this.svg.getBoundingClientRect());
    return { width: width || 800, height: height || 480 };
  }

  isShown(index) {
    return Boolean(this.plan.at[index]) && index <= this.limit;
  }

  draw() {
    const { x, y, scale } = this.view;
    const { width, height } = this.box();
    this.stage.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    const isFar = scale < ponderTree.Picture.FAR;
    if (isFar) {
      this.sketch();
      this.mark();
      return;
    }
    if (this.far.firstChild) this.far.replaceChildren();
    this.isSketched = false;
    const left = -x / scale - ponderTree.COLUMN, right = (width - x) / scale + ponderTree.COLUMN;
    const top = -y / scale - ponderTree.ROW, bottom = (height - y) / scale + ponderTree.ROW;
    const isIn = (place) => place.x > left && place.x < right && place.y > top && place.y < bottom;
    const seen = new Set();
    const edges = [], best = [];
    for (const index of this.plan.order) {
      if (!this.isShown(index)) continue;
      const place = this.plan.at[index];
      if (isIn(place)) {
        seen.add(index);
        this.put(index, place);
      }
      if (index > 0) this.link(index, place, top, bottom, left, right, this.nodes[index].best ? best : edges);
    }
    for (const [index, group] of this.drawn) {
      if (!seen.has(index)) { group.remove(); this.drawn.delete(index); }
    }
    this.edges.setAttribute("d", edges.join(""));
    this.bestEdges.setAttribute("d", best.join(""));
  }

  link(index, place, top, bottom, left, right, into) {
    const parent = this.plan.at[this.nodes[index].parent];
    const isAway = Math.max(place.y, parent.y) < top || Math.min(place.y, parent.y) > bottom || place.x < left || parent.x > right;
    if (isAway) return;
    const middle = ponderTree.HEIGHT / 2, from = parent.x + ponderTree.WIDTH, bend = (from + place.x) / 2;
    into.push(`M${from} ${parent.y + middle}C${bend} ${parent.y + middle} ${bend} ${place.y + middle} ${place.x} ${place.y + middle}`);
  }

  /* From far away only the selected node has elements of its own. */
  mark() {
    const index = this.selected;
    if (index === null || !this.isShown(index) || this.drawn.has(index)) return;
    const group = this.card(index, this.plan.at[index]);
    this.stage.append(group);
    this.drawn.set(index, group);
  }

  put(index, place) {
    let group = this.drawn.get(index);
    if (!group) {
      group = this.card(index, place);
      this.stage.append(group);
      this.drawn.set(index, group);
    }
    if (!group.hasTexts) this.write(group, index);
  }

  colour(index) {
    const node = this.nodes[index];
    if (index === 0) return "root";
    if (this.colouring === "state") return `state-${node.best ? "chosen" : node.state}`;
    if (node.score === undefined) return "score-none";
    return this.bands.find(({ high }) => node.score <= high).name;
  }

  card(index, place) {
    const node = this.nodes[index];
    const isOff = node.state === "pruned" || node.state === "cancelled";
    const names = ["node", this.colour(index), node.best ? "best" : "", isOff ? "off" : "", index === this.selected ? "selected" : ""];
    const group = ponderTree.element("g", { class: names.filter(Boolean).join(" "), transform: `translate(${place.x} ${place.y})` });
    group.dataset.node = index;
    ponderTree.element("rect", { class: "card-ground", width: ponderTree.WIDTH, height: ponderTree.HEIGHT, rx: 6 }, group);
    ponderTree.element("rect", { class: "stripe", width: 8, height: ponderTree.HEIGHT, rx: 3 }, group);
    return group;
  }

  write(group, index) {
    const node = this.nodes[index];
    const say = (name, x, y, text, more = {}) => { ponderTree.element("text", { class: name, x, y, ...more }, group).textContent = ponderTree.printable(text); };
    group.hasTexts = true;
    if (index === 0) {
      say("head", 18, 19, "the question");
      say("words", 18, 36, `${this.nodes.length - 1} nodes`);
    } else {
      const [glyph] = ponderTree.NAMES[node.best ? "chosen" : node.state] ?? ["•"];
      const facts = [glyph, node.score === undefined ? "" : ponderTree.score(node.score), `${node.tokens} tok`, node.times ? `×${node.times}` : "", ...node.notes];
      if (node.round !== undefined) facts.push(`round ${node.round}`);
      say("head", 18, 17, ponderTree.short(facts.filter(Boolean).join("  "), 32));
      const words = node.answer !== undefined && !node.text ? `= ${node.answer}` : node.text ?? "growing";
      say("words", 18, 36, ponderTree.short(words.replace(/\s+/gu, " ").trim() || "(no text)", 28));
    }
    if (this.plan.children[index].length) {
      const isFolded = this.folded.has(index);
      const fold = ponderTree.element("g", { class: "fold", transform: `translate(${ponderTree.WIDTH} ${ponderTree.HEIGHT / 2})` }, group);
      ponderTree.element("circle", { r: isFolded ? 13 : 8 }, fold);
      ponderTree.element("text", { "text-anchor": "middle", y: 4 }, fold).textContent = isFolded ? `+${Math.min(999, this.plan.below[index])}` : "–";
    }
  }

  select(index) {
    this.drawn.get(this.selected)?.classList.remove("selected");
    this.selected = index;
    this.drawn.get(index)?.classList.add("selected");
    this.ask();
  }

  /* Folds or unfolds a node, which stays where it is on the screen. */
  fold(index, isFolded = !this.folded.has(index)) {
    if (!this.plan.children[index].length || isFolded === this.folded.has(index)) return;
    const before = this.plan.at[index];
    if (isFolded) this.folded.add(index); else this.folded.delete(index);
    this.arrange();
    this.view.y += (before.y - this.plan.at[index].y) * this.view.scale;
  }

  reveal(index) {
    let isHidden = false;
    for (let above = this.nodes[index]?.parent ?? -1; above >= 0; above = this.nodes[above].parent) {
      isHidden = this.folded.delete(above) || isHidden;
    }
    if (isHidden) this.arrange();
  }

  zoom(factor, x = this.box().width / 2, y = this.box().height / 2) {
    const { LEAST, MOST } = ponderTree.Picture;
    const scale = Math.min(MOST, Math.max(LEAST, this.view.scale * factor));
    this.view.x = x - ((x - this.view.x) * scale) / this.view.scale;
    this.view.y = y - ((y - this.view.y) * scale) / this.view.scale;
    this.view.scale = scale;
    this.ask();
  }

  pan(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.ask();
  }

  /* Returns the largest scale, but not more than 1, at which the whole tree is in view. */
  whole() {
    const { width, height } = this.box();
    return Math.min(1, (width - 40) / this.plan.width, (height - 40) / this.plan.height);
  }

  fit() {
    const { width, height } = this.box();
    const scale = Math.max(ponderTree.Picture.LEAST, this.whole());
    this.view = { x: Math.max(20, (width - this.plan.width * scale) / 2), y: (height - this.plan.height * scale) / 2, scale };
    this.ask();
  }

  /* Shows the whole tree if it can be read then. Otherwise the question and the first of the chosen path, or this one. */
  open() {
    if (this.whole() >= ponderTree.Picture.READABLE) {
      this.fit();
      return;
    }
    const { height } = this.box();
    const { READABLE } = ponderTree.Picture;
    const root = this.plan.at[0].y;
    const first = this.plan.children[0].find((index) => this.nodes[index].best) ?? this.plan.children[0][0];
    const other = this.plan.at[first]?.y ?? root;
    const scale = Math.max(READABLE, Math.min(0.8, (height - 80) / (Math.abs(root - other) + ponderTree.ROW)));
    const isBoth = Math.abs(root - other) * scale < height - 80;
    this.view = { x: 20, y: height / 2 - ((isBoth ? (root + other) / 2 : other) + ponderTree.HEIGHT / 2) * scale, scale };
    this.ask();
  }

  /* Moves as little as is needed for a node to be in view. */
  bring(index) {
    const place = this.plan.at[index];
    if (!place) return;
    const { width, height } = this.box();
    if (this.view.scale < ponderTree.Picture.FAR) this.view.scale = 0.8;
    const { scale } = this.view;
    const margin = 30;
    const low = { x: margin - place.x * scale, y: margin - place.y * scale };
    const high = { x: width - margin - (place.x + ponderTree.WIDTH) * scale, y: height - margin - (place.y + ponderTree.HEIGHT) * scale };
    this.view.x = Math.max(low.x, Math.min(this.view.x, high.x));
    this.view.y = Math.max(low.y, Math.min(this.view.y, high.y));
    this.ask();
  }

  /* Returns the whole picture as a document of its own, whose colours are attributes. */
  exported() {
    const svg = ponderTree.element("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `-20 -20 ${this.plan.width + 60} ${this.plan.height + 40}`, class: "tree-picture" });
    svg.setAttribute("width", this.plan.width + 60);
    svg.setAttribute("height", this.plan.height + 40);
    const edges = [], best = [];
    const shown = this.plan.order.filter((index) => this.isShown(index));
    for (const index of shown) if (index > 0) this.link(index, this.plan.at[index], -Infinity, Infinity, -Infinity, Infinity, this.nodes[index].best ? best : edges);
    ponderTree.element("rect", { class: "ground", x: -20, y: -20, width: this.plan.width + 60, height: this.plan.height + 40 }, svg);
    ponderTree.element("path", { class: "edge", d: edges.join("") }, svg);
    ponderTree.element("path", { class: "edge best", d: best.join("") }, svg);
    for (const index of shown) {
      const group = this.card(index, this.plan.at[index]);
      this.write(group, index);
      svg.append(group);
    }
    this.paint(svg);
    return new XMLSerializer().serializeToString(svg);
  }

  /* Looks colours up as the page has them, once for each kind of element. */
  paint(svg) {
    const known = new Map();
    const probe = this.svg.parentNode.appendChild(ponderTree.element("svg", { class: "tree-picture probe" }));
    for (const one of svg.querySelectorAll("rect, path, text, circle")) {
      const of = one.closest("g.node");
      const key = `${of?.getAttribute("class") ?? ""}|${one.parentNode.getAttribute("class") ?? ""}|${one.tagName}|${one.getAttribute("class") ?? ""}`;
      if (!known.has(key)) {
        probe.replaceChildren(of ? of.cloneNode(true) : one.cloneNode(true));
        const all = [...probe.querySelectorAll(one.tagName)];
        const same = of ? all[[...of.querySelectorAll(one.tagName)].indexOf(one)] : all[0];
        const { fill, stroke, strokeWidth, opacity, fontSize, fontFamily, fontWeight } = getComputedStyle(same);
        const texts = one.tagName === "text" ? { "font-size": fontSize, "font-family": fontFamily, "font-weight": fontWeight } : {};
        known.set(key, { fill, stroke, "stroke-width": strokeWidth, opacity, ...texts });
      }
      for (const [name, value] of Object.entries(known.get(key))) one.setAttribute(name, value);
    }
    probe.remove();
  }
};

ponderTree.element = (name, attributes = {}, into = null) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) if (key !== "xmlns") made.setAttribute(key, value);
  into?.append(made);
  return made;
};

/* Returns a text with a mark in place of what neither a screen nor XML can hold. */
ponderTree.printable = (text) => text.replace(/[\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, "\uFFFD");

ponderTree.score = (value, digits = 2) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text; // never -0.00
};

/* Divides scores into at most seven bands of about as many distinct values, whose names are colours from low to high. */
ponderTree.bands = (nodes) => {
  const values = [...new Set(nodes.map((node) => node.score).filter((score) => score !== undefined))].sort((a, b) => a - b);
  const num = Math.min(7, values.length);
  return Array.from({ length: num }, (_, place) => ({
    name: `score-${num > 1 ? Math.round((place * 6) / (num - 1)) : 6}`,
    low: values[Math.floor((place * values.length) / num)],
    high: values[Math.floor(((place + 1) * values.length) / num) - 1],
  }));
};

/* Cuts a text by characters, not in the middle of one. */
ponderTree.short = (text, most) => {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
};

/* Tells everything that is known of the selected node. Texts are only ever set as text. */
"use strict";

ponderTree.html = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

ponderTree.percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(share * 100).toFixed(1)} %`);

ponderTree.money = (nanodollars) => {
  const dollars = nanodollars / 1e9;
  return dollars >= 0.01 ? `$${dollars.toFixed(2)}` : `$${Number(dollars.toPrecision(2)).toFixed(12).replace(/0+$/u, "").replace(/\.$/u, "")}`;
};

ponderTree.state = (node, index) => {
  if (index === 0) return "the question";
  const [, words] = ponderTree.NAMES[node.state] ?? ["", node.state];
  return (node.best ? "leads to the answer" : words) + (node.stop && !["stop", "separator"].includes(node.stop) ? ` (${node.stop})` : "");
};

ponderTree.makers = (node, tree) => (node.by ?? []).map((one) => {
  const attempt = one.attempt === null ? null : tree.attempts[one.attempt];
  if (!attempt) return "an unknown attempt";
  const end = attempt.outcome && attempt.outcome !== "settled" ? `, ${attempt.reason ?? attempt.outcome}` : "";
  const from = one.from > 0 ? ` from token ${one.from} on` : "";
  return `${attempt.name}${from}: ${attempt.machine}, ${attempt.market.replace("_", " ")}${end}`;
});

/* Whether an attempt before the one that settled the job computed the node, which then only read it. */
ponderTree.isCached = (node, tree) => {
  const last = node.by?.at(-1)?.attempt;
  return last !== undefined && last !== null && tree.attempts.slice(last + 1).some((attempt) => attempt.outcome === "settled");
};

ponderTree.facts = (tree, step, index) => {
  const node = step.nodes[index];
  const share = (tokens) => (tree.tokens ? `${ponderTree.percent(tokens / tree.tokens)} of the tokens, ≈ ${ponderTree.money((tree.nanodollars * tokens) / tree.tokens)}` : "–");
  const facts = [["State", ponderTree.state(node, index)]];
  if (node.score !== undefined) facts.push(["Score", ponderTree.score(node.score, 4)]);
  if (node.answer !== undefined) facts.push(["Answer", node.answer]);
  if (index > 0) facts.push(["Tokens", String(node.tokens)], ["Share of cost", share(node.tokens)]);
  if ((node.below ?? 0) > node.tokens) facts.push(["With all below", share(node.below)]);
  if (node.times) facts.push(["Same text", `${node.times} siblings, drawn once`]);
  if (node.round !== undefined) facts.push(["Round", String(node.round)]);
  if (node.confidence !== undefined) facts.push(["Confidence", node.confidence.toFixed(3)]);
  if (node.passed !== undefined) facts.push(["Verifier", node.passed ? "passed" : "not passed"]);
  if (node.feedback) facts.push(["Feedback", node.feedback]);
  if (node.notes.length) facts.push(["Notes", node.notes.join(", ")]);
  const makers = ponderTree.makers(node, tree);
  if (makers.length) facts.push(["Computed by", makers.join("; then ")]);
  if (ponderTree.isCached(node, tree)) facts.push(["Cached", "kept from another attempt, not computed again"]);
  return facts;
};

ponderTree.tell = (panel, tree, stepNumber, index) => {
  if (index === null) {
    panel.replaceChildren(ponderTree.html("p", "Select a node to see what it says, what it cost and who computed it.", { class: "faint" }));
    return;
  }
  const step = tree.steps[stepNumber];
  const node = step.nodes[index];
  const list = ponderTree.html("dl", "", { class: "facts" });
  for (const [name, value] of ponderTree.facts(tree, step, index)) {
    const row = document.createElement("div");
    row.append(ponderTree.html("dt", name), ponderTree.html("dd", value));
    list.append(row);
  }
  const title = ponderTree.html("h3", index === 0 ? "The question" : `Node ${index}`);
  const parts = [title, list];
  if (index > 0) {
    const words = ponderTree.html("pre", node.text ?? "Its text appears when it is finished.", { tabindex: "0", dir: "auto", class: "words", "aria-label": "Text of the node" });
    parts.push(words);
    const address = `/jobs/${tree.job_id}/nodes/${index}?step=${stepNumber}`;
    if (node.chars) {
      const more = ponderTree.html("button", `Show all ${node.chars.toLocaleString("en")} characters`, { type: "button" });
      more.addEventListener("click", async () => {
        const answer = await fetch(address);
        if (!answer.ok || answer.redirected) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        words.textContent = page.querySelector("#text")?.textContent ?? "";
        more.remove();
      });
      parts.push(more);
    }
    parts.push(ponderTree.html("a", "Open as a page", { href: address, class: "apart-link" }));
  }
  panel.replaceChildren(...parts);
};

/* The search tree on the page of a job: its controls, the mouse and the keyboard, the replay, exports and live growth. */
"use strict";

(() => {
  let page = null;

  class Page {
    constructor(root) {
      this.root = root;
      this.job = root.dataset.job;
      this.step = 0;
      this.timer = null;
      this.build();
      this.listen();
    }

    build() {
      const { html } = ponderTree;
      const button = (label, act, more = {}) => {
        const made = html("button", label, { type: "button", ...more });
        made.addEventListener("click", act);
        return made;
      };
      this.steps = html("select", "", { "aria-label": "Step" });
      this.colours = html("select", "", { "aria-label": "Colour by" });
      for (const name of ["state", "score"]) this.colours.append(html("option", `colour by ${name}`, { value: name }));
      this.play = button("Replay", () => this.replay());
      this.slider = html("input", "", { type: "range", min: "1", max: "1", value: "1", "aria-label": "Nodes shown, in the order in which they were begun" });
      this.place = html("span", "", { class: "faint place" });
      const views = html("div", "", { class: "row", role: "group", "aria-label": "View" });
      views.append(button("+", () => this.picture.zoom(1.3), { "aria-label": "Zoom in" }), button("−", () => this.picture.zoom(1 / 1.3), { "aria-label": "Zoom out" }),
        button("Fit", () => this.picture.fit()), button("Chosen path", () => this.follow()), button("Fold all", () => this.foldAll()), button("Unfold all", () => this.unfoldAll()));
      const times = html("div", "", { class: "row replay", role: "group", "aria-label": "Replay" });
      times.append(this.play, button("‹", () => this.stepTo(-1), { "aria-label": "One node back" }), this.slider, button("›", () => this.stepTo(1), { "aria-label": "One node on" }), this.place);
      const exports = html("div", "", { class: "row", role: "group", "aria-label": "Export" });
      exports.append(button("SVG", () => this.save()), html("a", "JSON", { href: `/jobs/${this.job}/tree.json?export=true`, class: "button", download: "" }));
      const bar = html("div", "", { class: "tree-bar" });
      bar.append(this.steps, this.colours, views, times, exports);
      const svg = ponderTree.element("svg", { class: "tree-picture", "aria-hidden": "true" });
      this.frame = html("div", "", { class: "tree-frame", tabindex: "0", role: "application", "aria-roledescription": "search tree", "aria-label": "Search tree", "aria-describedby": "tree-help" });
      this.frame.append(svg);
      this.panel = html("div", "", { class: "tree-details", role: "region", "aria-label": "Selected node", id: "tree-details" });
      this.said = html("p", "", { class: "hidden", "aria-live": "polite" });
      this.legend = html("ul", "", { class: "legend tree-legend" });
      const help = html("p", "Arrow keys move along the tree, Enter folds, + and − zoom, 0 fits, C follows the chosen path, Home goes to the question. Drag to pan; scroll with Ctrl, or once the picture has the focus, to zoom.", { class: "hint", id: "tree-help" });
      const both = html("div", "", { class: "tree-both" });
      both.append(this.frame, this.panel);
      this.root.append(bar, both, this.legend, help, this.said);
      this.picture = new ponderTree.Picture(svg);
      this.root.hidden = false;
    }

    get nodes() { return this.tree.steps[this.step].nodes; }

    /* Takes a newer tree. Zoom, folds and the selection stay. */
    take(tree) {
      const isFirst = !this.tree;
      const isAtEnd = isFirst || this.picture.limit >= this.nodes.length - 1;
      this.tree = tree;
      if (isFirst) this.step = Math.max(0, tree.answered_by ?? tree.steps.length - 1);
      this.step = Math.min(this.step, tree.steps.length - 1);
      const { picture } = this;
      if (picture.selected >= this.nodes.length) picture.selected = null;
      for (const index of picture.folded) if (index >= this.nodes.length) picture.folded.delete(index);
      this.nameSteps();
      this.showStep(isAtEnd);
      if (!isFirst) return;
      this.resize();
      if (!this.goTo(location.hash)) picture.open();
    }

    /* Gives the picture the height that its tree needs. A tree that grows may make it higher, never lower. */
    resize(least = 320) {
      const { picture } = this;
      const scale = Math.min(1, (picture.box().width - 40) / picture.plan.width);
      const wanted = Math.min(picture.plan.height * scale + 60, 560, innerHeight * 0.62);
      this.frame.style.height = `${Math.round(Math.max(wanted, least))}px`;
      picture.size = null;
    }

    nameSteps() {
      const { steps } = this.tree;
      this.steps.hidden = steps.length < 2;
      if (this.steps.options.length !== steps.length) this.steps.replaceChildren(...steps.map((_, number) => ponderTree.html("option", "", { value: number })));
      steps.forEach((one, number) => { this.steps.options[number].textContent = one.title; });
      this.steps.value = String(this.step);
    }

    showStep(isAtEnd) {
      const last = Math.max(1, this.nodes.length - 1);
      this.slider.max = String(last);
      if (isAtEnd) { this.picture.limit = Infinity; this.slider.value = String(last); }
      this.picture.show(this.nodes);
      if (this.frame.style.height) this.resize(this.frame.offsetHeight);
      this.tellPlace();
      this.tellLegend();
      ponderTree.tell(this.panel, this.tree, this.step, this.picture.selected);
      this.climb();
    }

    /* Selects the nearest node above a selected one that has no place any more. */
    climb() {
      const { picture, nodes } = this;
      let index = picture.selected;
      while (index > 0 && !picture.plan.at[index]) index = nodes[index].twin ?? nodes[index].parent;
      if (index !== picture.selected) this.choose(index, false);
    }

    tellLegend() {
      const known = (name, words) => { const item = ponderTree.html("li", "", { class: `key ${name}` }); item.append(ponderTree.html("span", words)); return item; };
      if (this.picture.colouring === "score") {
        const { score } = ponderTree;
        const between = ({ low, high }) => (score(low) === score(high) ? score(low) : `${score(low)} to ${score(high)}`);
        this.legend.replaceChildren(...this.picture.bands.map((band) => known(band.name, between(band))), known("score-none", "no score"));
        return;
      }
      const used = new Set(this.nodes.slice(1).map((node) => (node.best ? "chosen" : node.state)));
      this.legend.replaceChildren(...Object.entries(ponderTree.NAMES).filter(([name]) => used.has(name)).map(([name, [glyph, words]]) => known(`state-${name}`, `${glyph} ${words}`)));
    }

    tellPlace() {
      const last = this.nodes.length - 1;
      const shown = Math.min(last, Number(this.slider.value));
      this.place.textContent = `${shown} of ${last}`;
    }

    listen() {
      this.steps.addEventListener("change", () => { this.stop(); this.step = Number(this.steps.value); this.picture.folded.clear(); this.picture.selected = null; this.showStep(true); this.resize(); this.picture.open(); });
      this.colours.addEventListener("change", () => { this.picture.colouring = this.colours.value; this.picture.arrange(); this.tellLegend(); });
      this.slider.addEventListener("input", () => { this.stop(); this.setLimit(Number(this.slider.value)); });
      this.frame.addEventListener("keydown", (event) => this.key(event));
      this.frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      addEventListener("hashchange", () => this.goTo(location.hash));
      new ResizeObserver(() => { this.picture.size = null; this.picture.ask(); }).observe(this.frame);
      this.drag();
    }

    /* One pointer pans, two zoom. A press that does not move selects, and on the mark at a node's right folds. */
    drag() {
      const held = new Map();
      let moved = 0;
      const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
      this.frame.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        if (!held.size) moved = 0;
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      });
      this.frame.addEventListener("pointermove", (event) => {
        const before = held.get(event.pointerId);
        if (!before) return;
        const was = held.size === 2 ? spread() : 0;
        const [x, y] = [event.clientX - before.x, event.clientY - before.y];
        moved += Math.abs(x) + Math.abs(y);
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (moved < 4) return;
        if (!this.frame.hasPointerCapture(event.pointerId)) this.frame.setPointerCapture(event.pointerId);
        const box = this.frame.getBoundingClientRect();
        if (held.size === 2 && was > 0) this.picture.zoom(spread() / was, event.clientX - box.left, event.clientY - box.top);
        else this.picture.pan(x, y);
      });
      const end = (event) => {
        if (!held.delete(event.pointerId) || moved >= 4 || event.type !== "pointerup") return;
        const index = this.at(event);
        if (index === undefined) return;
        if (event.target.closest(".fold")) this.picture.fold(index);
        this.choose(index, false);
      };
      for (const kind of ["pointerup", "pointercancel"]) this.frame.addEventListener(kind, end);
      this.frame.addEventListener("dblclick", (event) => {
        const index = this.at(event);
        if (index !== undefined) this.picture.fold(index);
      });
    }

    at(event) {
      const named = event.target.closest?.("[data-node]")?.dataset.node;
      if (named !== undefined) return Number(named);
      const box = this.frame.getBoundingClientRect();
      return this.picture.hit(event.clientX - box.left, event.clientY - box.top);
    }

    wheel(event) {
      const isOurs = event.ctrlKey || event.metaKey || document.activeElement === this.frame;
      if (!isOurs) return;
      event.preventDefault();
      const box = this.frame.getBoundingClientRect();
      this.picture.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { picture } = this;
      const at = picture.selected ?? 0;
      const acts = {
        ArrowRight: () => { if (picture.folded.has(at)) picture.fold(at, false); else this.choose(picture.plan.children[at].find((one) => picture.isShown(one))); },
        ArrowLeft: () => this.choose(Math.max(0, this.nodes[at].parent)),
        ArrowDown: () => this.choose(this.neighbour(at, 1)),
        ArrowUp: () => this.choose(this.neighbour(at, -1)),
        Enter: () => { picture.fold(at); this.say(at); }, " ": () => { picture.fold(at); this.say(at); },
        Home: () => this.choose(0), End: () => this.follow(), c: () => this.follow(), C: () => this.follow(),
        "+": () => picture.zoom(1.3), "=": () => picture.zoom(1.3), "-": () => picture.zoom(1 / 1.3), 0: () => picture.fit(),
        Escape: () => this.choose(null),
      };
      if (!acts[event.key]) return;
      event.preventDefault();
      acts[event.key]();
    }

    /* The next node above or below in the same column. */
    neighbour(index, direction) {
      const { at, order } = this.picture.plan;
      const column = order.filter((one) => at[one].depth === at[index].depth && this.picture.isShown(one));
      return column[column.indexOf(index) + direction];
    }

    choose(index, isBrought = true) {
      if (index === undefined) return;
      this.picture.select(index);
      ponderTree.tell(this.panel, this.tree, this.step, index);
      if (index === null) return;
      if (isBrought) this.picture.bring(index);
      this.say(index);
      history.replaceState(history.state, "", index === 0 ? location.pathname + location.search : `#node-${this.step ? `${this.step}-` : ""}${index}`);
    }

    say(index) {
      const node = this.nodes[index];
      const num = this.picture.plan.children[index].length;
      const below = num ? `${num} below${this.picture.folded.has(index) ? ", folded" : ""}` : "nothing below";
      const facts = ponderTree.facts(this.tree, this.tree.steps[this.step], index).slice(0, 3).map(([name, value]) => `${name}: ${value}`);
      this.said.textContent = [index ? `Node ${index}` : "The question", ...facts, below, node.text ?? ""].join(". ");
    }

    /* Goes to #node-12, or #node-1-12 in the second step. Returns whether there is such a node. */
    goTo(hash) {
      const found = /^#node-(?:(\d+)-)?(\d+)$/u.exec(hash);
      if (!found) return false;
      const step = found[1] === undefined ? (this.tree.steps.length > 1 ? 0 : this.step) : Number(found[1]);
      let index = Number(found[2]);
      if (!this.tree.steps[step]?.nodes[index]) return false;
      if (step !== this.step) { this.step = step; this.steps.value = String(step); this.picture.folded.clear(); this.showStep(true); }
      index = this.nodes[index].twin ?? index;
      this.stop();
      this.setLimit(this.nodes.length - 1);
      this.picture.reveal(index);
      this.picture.view.scale = Math.max(this.picture.view.scale, 0.8);
      this.choose(index);
      this.frame.scrollIntoView({ block: "center" });
      return true;
    }

    follow() {
      const path = this.nodes.flatMap((node, index) => (node.best ? [index] : []));
      if (!path.length) { this.said.textContent = "No path has been chosen."; return; }
      this.picture.reveal(path.at(-1));
      this.choose(path.at(-1));
    }

    foldAll() {
      this.nodes.forEach((_, index) => { if (index > 0 && this.picture.plan.children[index].length) this.picture.folded.add(index); });
      this.picture.arrange();
      this.climb();
      this.picture.open();
    }

    unfoldAll() {
      this.picture.folded.clear();
      this.picture.arrange();
      this.picture.open();
    }

    setLimit(limit) {
      const last = this.nodes.length - 1;
      this.picture.limit = limit >= last ? Infinity : limit;
      this.slider.value = String(Math.min(limit, last));
      this.tellPlace();
      this.picture.isSketched = false;
      this.picture.ask();
    }

    stepTo(by) {
      this.stop();
      this.setLimit(Math.max(1, Math.min(this.nodes.length - 1, Number(this.slider.value) + by)));
    }

    replay() {
      if (this.timer !== null) { this.stop(); return; }
      const last = this.nodes.length - 1;
      if (Number(this.slider.value) >= last) this.setLimit(1);
      this.play.textContent = "Pause";
      const stride = Math.max(1, Math.round(last / 200));
      this.timer = setInterval(() => {
        this.setLimit(Math.min(this.nodes.length - 1, Number(this.slider.value) + stride));
        if (this.picture.limit === Infinity) this.stop();
      }, 120);
    }

    stop() {
      clearInterval(this.timer);
      this.timer = null;
      this.play.textContent = "Replay";
    }

    save() {
      const address = URL.createObjectURL(new Blob([this.picture.exported()], { type: "image/svg+xml" }));
      const link = ponderTree.html("a", "", { href: address, download: `${this.job}-tree.svg` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    }
  }

  const fetched = async () => {
    const root = document.querySelector("#tree");
    if (!root) return;
    const answer = await fetch(`/jobs/${root.dataset.job}/tree.json`).catch(() => null); // the next change asks again
    if (!answer?.ok || answer.redirected) return; // signed out: the page says so once it is loaded again
    const tree = await answer.json();
    if (!tree.steps.length) return;
    page ??= new Page(root);
    page.take(tree);
  };

  /* One at a time, so that an older tree never replaces a newer one. What changes meanwhile is fetched once after it. */
  let isLoading = false;
  let isOutdated = false;
  const load = async () => {
    isOutdated = true;
    if (isLoading) return;
    isLoading = true;
    try {
      while (isOutdated) {
        isOutdated = false;
        await fetched();
      }
    } finally {
      isLoading = false;
    }
  };
  load();
  document.addEventListener("ponder:changed", () => { if (page) load(); });
  document.addEventListener("htmx:afterSettle", () => { if (!page) load(); });
})();

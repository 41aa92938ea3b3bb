/* Dialogs of the page of a batch, and a look at once after it was changed. */
"use strict";

(() => {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  });

  /* What came of it is told in the notice, which a modal dialog would cover. */
  document.addEventListener("htmx:afterRequest", (event) => event.target.closest?.("dialog")?.close());

  document.addEventListener("ponder:stale", () => {
    htmx.ajax("GET", location.pathname + location.search, {
      source: "#live", target: "#live", select: "#live", swap: "morph:outerHTML",
    });
  });

  /* A refresh neither closes what somebody has opened, nor changes a form that somebody fills in. */
  Object.assign(Idiomorph.defaults.callbacks, {
    beforeAttributeUpdated: (name) => name !== "open",
    beforeNodeMorphed: (node) => !node.hasAttribute?.("data-keep"),
  });
})();

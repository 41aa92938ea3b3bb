/* Drag and drop, the progress of an upload, and the field that an error is about. */
"use strict";

(() => {
  const upload = document.getElementById("upload");
  if (upload) {
    const drop = document.getElementById("drop");
    const file = document.getElementById("file");
    const bar = document.getElementById("upload-bar");
    const text = document.getElementById("upload-text");
    const progress = document.getElementById("upload-progress");
    const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);

    const tell = () => {
      const chosen = file.files[0];
      document.getElementById("drop-text").textContent = chosen ? `${chosen.name}, ${size(chosen.size)}` : "Choose a file or drop it here";
    };
    /* The server would refuse it only after it has been sent, and a browser then may not read why. */
    const most = Number(upload.dataset.mostBytes);
    const problem = document.getElementById("upload-problem");
    const refuse = (reason) => {
      problem.textContent = reason;
      problem.hidden = !reason;
    };
    file.addEventListener("change", () => {
      const chosen = file.files[0];
      const isLarge = chosen && chosen.size > most;
      refuse(isLarge ? `${chosen.name} has ${size(chosen.size)}, and a file may have at most ${size(most)}: divide it, or compress it with gzip.` : "");
      if (isLarge) file.value = "";
      tell();
      if (file.files.length) upload.requestSubmit();
    });
    for (const kind of ["dragenter", "dragover"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) drop.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (!event.dataTransfer.files.length) return;
      file.files = event.dataTransfer.files;
      file.dispatchEvent(new Event("change"));
    });
    upload.addEventListener("htmx:beforeRequest", () => {
      progress.hidden = false;
      bar.value = 0;
      text.textContent = "Uploading …";
    });
    upload.addEventListener("htmx:xhr:progress", ({ detail }) => {
      if (!detail.lengthComputable || !detail.total) return;
      bar.value = (100 * detail.loaded) / detail.total;
      const done = detail.loaded >= detail.total ? "Storing it …" : `${Math.floor(bar.value)} % of ${size(detail.total)}`;
      if (text.textContent !== done) text.textContent = done;
    });
    upload.addEventListener("htmx:sendError", () => refuse("The upload broke off. Choose the file again: the limit of size or of stored files may be reached, or the server be away."));
    upload.addEventListener("htmx:beforeRequest", () => refuse(""));
    upload.addEventListener("htmx:afterRequest", ({ detail }) => {
      if (detail.successful) return;
      progress.hidden = true;
      file.value = "";
      tell();
    });
    document.getElementById("upload-cancel").addEventListener("click", () => htmx.trigger(upload, "htmx:abort"));
  }

  const form = document.getElementById("batch");
  if (!form) return;
  const told = document.getElementById("check");

  /* An error names the field of the request; the form's field has nearly the same name. */
  const mark = () => {
    for (const marked of document.querySelectorAll("[aria-invalid]")) marked.removeAttribute("aria-invalid");
    const param = told.querySelector("[data-param]")?.dataset.param.replace(/^ponder\./, "");
    if (!param) return;
    const [kind, rest] = param.split(/\.(.*)/s);
    const chosen = form.querySelector(`input[name="${CSS.escape(kind)}"]:checked`)?.value;
    for (const name of [param, `${kind}.${chosen}.${rest}`, kind]) {
      const field = form.querySelector(`[name="${CSS.escape(name)}"]`);
      if (field && field.type !== "radio" && field.type !== "hidden") {
        field.setAttribute("aria-invalid", "true");
        field.closest("details")?.setAttribute("open", "");
        break;
      }
    }
  };
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target === told) mark();
  });

  const busy = (isBusy) => {
    told.setAttribute("aria-busy", String(isBusy));
    document.getElementById("busy").hidden = !isBusy;
  };
  const outdated = (isOutdated) => {
    told.classList.toggle("outdated", isOutdated);
    document.getElementById("outdated").hidden = !isOutdated;
  };

  /* One check at a time, because the server finishes what it has begun. Of those wanted meanwhile, one follows, and what
     somebody asked for stays asked for. An answer about a form that has changed since is not shown. */
  const automatic = "automatic", onRequest = "on request";
  let waiting = 0, running = null, next = null, isLarge = false;
  const check = async (kind) => {
    clearTimeout(waiting);
    busy(true);
    if (running) {
      next = next === onRequest ? onRequest : kind;
      return;
    }
    running = new AbortController();
    const { signal } = running;
    const body = new URLSearchParams(new FormData(form));
    const asked = String(body);
    if (kind === automatic) body.set("automatic", "yes");
    try {
      const answer = await fetch("/new/check", { method: "POST", body, signal, headers: { "HX-Request": "true" } });
      const text = await answer.text();
      const leads = answer.headers.get("HX-Redirect");
      if (leads) location.assign(leads);
      if (asked === String(new URLSearchParams(new FormData(form)))) {
        (answer.ok ? told : document.getElementById("notice")).innerHTML = text; // the server has escaped it
        if (answer.ok) outdated(false);
        isLarge ||= Boolean(told.querySelector("[data-is-large]"));
        mark();
      }
    } catch {
      // given up, or the server is away: what was told stays
    }
    running = null;
    if (signal.aborted) return;
    const wanted = next;
    next = null;
    if (wanted) check(wanted);
    else busy(false);
  };
  document.getElementById("check-now").addEventListener("click", (event) => {
    event.preventDefault();
    check(onRequest);
  });
  /* What is told is about the form as it was, until a check has answered. */
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    if ("automatic" in told.dataset && !isLarge) {
      busy(true);
      waiting = setTimeout(check, 700, automatic);
    } else if (told.querySelector(".estimate, .lines")) {
      outdated(true);
    }
  });
  if ("automatic" in told.dataset && !("isTold" in told.dataset)) check(automatic);
  const giveUp = () => {
    clearTimeout(waiting);
    next = null;
    running?.abort();
    busy(false);
  };
  form.addEventListener("submit", giveUp);
  addEventListener("pagehide", giveUp);
})();

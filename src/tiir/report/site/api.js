"use strict";
// What the live server answers. A request is refused without the header, so other sites cannot send one.
(function (tiir) {
  const { el } = tiir;

  async function ask(path, options) {
    const response = await fetch(`api/${path}`, { credentials: "same-origin", ...options });
    if (response.status === 401 && path !== "login") {
      await login();
      return ask(path, options);
    }
    let answer = {};
    try {
      answer = await response.json();
    } catch {
      // no JSON: the status says enough
    }
    if (response.ok) return answer;
    const error = new Error([answer.error || `the server answered ${response.status}`, answer.hint].filter(Boolean).join(". "));
    error.refused = response.status >= 400 && response.status < 500 && response.status !== 429;
    throw error;
  }

  let asking = null;
  // Ask for the token that the server printed, until it is the right one.
  function login() {
    asking ||= new Promise((resolve) => {
      const input = el("input", { type: "password", autocomplete: "off", required: true });
      const note = el("p", { class: "small", role: "alert" });
      const dialog = el("dialog", { class: "sheet", "aria-labelledby": "token-title", oncancel: (event) => event.preventDefault() },
        el("form", {
          onsubmit: async (event) => {
            event.preventDefault();
            try {
              await post("login", { token: input.value });
              dialog.close();
              dialog.remove();
              asking = null;
              resolve();
            } catch (error) {
              note.textContent = error.message;
            }
          },
        }, el("h2", { id: "token-title" }, "Token"), el("label", { class: "field" }, el("span", {}, "The token that tiir explore printed"), input), note, el("button", { class: "button primary" }, "Open")));
      document.body.append(dialog);
      dialog.showModal();
    });
    return asking;
  }

  function post(path, body) {
    const form = body instanceof FormData;
    return ask(path, {
      method: "POST",
      headers: form ? { "X-Tiir": "1" } : { "X-Tiir": "1", "Content-Type": "application/json" },
      body: form ? body : JSON.stringify(body),
    });
  }

  tiir.api = { get: (path) => ask(path, {}), post };
})((window.tiir = window.tiir || {}));

"use strict";
// The frame: which view the address names, the navigation, focus and scroll.
(function (tiir) {
  const { el, parse, href } = tiir;
  const main = document.getElementById("main");
  const scrolled = new Map(); // how far down each address was left
  let current = null; // {view, node, update}
  let shown = null; // the address on screen
  let clicked = false; // a link was followed, as opposed to the back button
  let turn = 0;

  const NAMES = [["overview", "Overview"], ["queries", "Queries"], ["compare", "Compare"], ["search", "Search"]];
  const usable = (name) => Object.hasOwn(tiir.views, name) && (name !== "compare" || tiir.site.runs.length > 1) && (name !== "search" || tiir.site.live);

  function navigation(view) {
    const active = view === "query" ? "queries" : view;
    document.getElementById("nav").replaceChildren(...NAMES.filter(([name]) => usable(name)).map(([name, label]) =>
      el("a", { href: href(name === "overview" ? "" : name), "aria-current": name === active ? "page" : null }, label)));
  }

  function tools() {
    document.getElementById("tools").replaceChildren(...[
      tiir.judge.button(),
      el("button", { class: "icon help", type: "button", "aria-label": "Keys and help", title: "Keys and help (?)", onclick: tiir.help }, "?"),
      el("button", { class: "icon theme", type: "button", "aria-label": "Switch between light and dark", title: "Light or dark", onclick: () => { tiir.theme.toggle(); dispatchEvent(new Event("tiir-theme")); } }, el("span", { "aria-hidden": true })),
    ]);
    const { site } = tiir;
    document.getElementById("foot").replaceChildren(el("div", { class: "inner" }, `tiir ${site.tiir} · made ${site.created.slice(0, 10)} · data set ${site.dataset.fingerprint.slice(0, 12)}`));
  }

  function problem(error) {
    return el("div", { class: "page narrow" }, el("h1", {}, "This did not work"), el("p", { class: "notice" }, error.message || String(error)), el("p", {}, el("a", { href: "#/" }, "Back to the overview")));
  }

  async function render() {
    const address = location.hash || "#/";
    const state = parse(address);
    const name = state.view || "overview";
    const mine = ++turn;
    const traversed = !clicked;
    clicked = false;
    if (shown !== null) scrolled.set(shown, scrollY);
    const first = shown === null;
    const stay = current && current.name === name && parse(shown).id === state.id;
    shown = address;
    let node = null;
    if (!stay) tiir.keys = null;
    try {
      if (!usable(name)) throw new Error("There is no such page here.");
      navigation(name);
      if (stay && current.update) {
        current.update(state);
        main.dataset.address = address;
        return;
      }
      const made = await tiir.views[name].show(state);
      if (mine !== turn) return; // another address came first
      node = made.node || made;
      current = { name, update: made.update };
      document.title = `${tiir.views[name].title(state)} · ${tiir.site.dataset.name} · tiir`;
    } catch (error) {
      if (mine !== turn) return;
      current = null;
      node = problem(error);
    }
    main.replaceChildren(node);
    main.dataset.address = address;
    if (first) return;
    if (stay) return scrollTo(0, scrolled.get(address) ?? scrollY);
    scrollTo(0, traversed ? scrolled.get(address) || 0 : 0);
    main.focus({ preventScroll: true });
  }

  function start() {
    tiir.judge.start();
    tools();
    history.scrollRestoration = "manual";
    addEventListener("hashchange", render);
    document.addEventListener("click", (event) => {
      const link = event.target.closest && event.target.closest("a");
      if (link && link.classList.contains("skip")) {
        event.preventDefault();
        main.focus();
      }
      clicked = Boolean(link);
    }, true);
    render();
  }

  tiir.load("site").then((site) => {
    tiir.site = site;
    start();
  }).catch((error) => main.replaceChildren(problem(error)));
})((window.tiir = window.tiir || {}));

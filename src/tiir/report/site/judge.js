"use strict";
// Judgements of people: kept in this browser, and by the server where there is one; nothing is lost when it is away.
(function (tiir) {
  const { el, say } = tiir;
  const kept = new Map(); // "image caption" (ids, as JSON) -> the last record
  const watchers = new Set();
  const draws = new WeakMap(); // the buttons of a pair -> what draws them anew
  let unsent = []; // records the server has not confirmed, with their positions
  const held = new Set(); // which records were this tab's to send
  let storage = true;

  const pair = (record) => JSON.stringify([record.image_id, record.caption_id]);
  const key = (kind) => `tiir-${kind}-${tiir.site.dataset.fingerprint}`;

  function read(kind) {
    try {
      return JSON.parse(localStorage.getItem(key(kind)) || "[]");
    } catch {
      return [];
    }
  }

  function write(kind, value) {
    try {
      localStorage.setItem(key(kind), JSON.stringify(value));
      storage = true;
    } catch {
      storage = false;
    }
  }

  const take = (records) => records.filter(valid).forEach((record) => kept.set(pair(record), record));
  const valid = (record) => record && typeof record.image_id === "string" && typeof record.caption_id === "string" && [true, false, null].includes(record.relevant);
  const counted = () => [...kept.values()].filter((record) => record.relevant !== null);

  // Beside those of other tabs, which send their own.
  function keepUnsent() {
    const mark = ({ record }) => pair(record) + record.time;
    unsent.forEach((each) => held.add(mark(each)));
    write("unsent", [...read("unsent").filter((each) => !held.has(mark(each))), ...unsent]);
  }

  function redraw() {
    watchers.forEach((watch) => watch());
    document.querySelectorAll(".judges").forEach((node) => draws.get(node)());
  }

  function changed() {
    if (!tiir.site.live) write("judgements", [...kept.values()]);
    else keepUnsent();
    redraw();
  }

  async function start() {
    if (!tiir.site.live) {
      addEventListener("storage", (event) => { // another tab of the same site
        if (event.key !== key("judgements")) return;
        take(read("judgements"));
        redraw();
      });
      return take(read("judgements"));
    }
    unsent = read("unsent");
    keepUnsent();
    addEventListener("online", send);
    try {
      take((await tiir.api.get("judgements")).judgements);
    } catch (error) {
      say(`The server's judgements could not be read: ${error.message}`);
    }
    take(unsent.map((each) => each.record));
    redraw();
    return send();
  }

  let sending = Promise.resolve();
  // One after the other, oldest first, so that the server's file has them in order.
  function send() {
    sending = sending.then(async () => {
      while (unsent.length) {
        const { record, body } = unsent[0];
        const run = tiir.site.runs.findIndex((each) => each.name === record.run); // the server may show others by now
        try {
          await tiir.api.post("judgements", { ...body, run: run < 0 ? null : run });
        } catch (error) {
          if (error.refused) {
            unsent.shift();
            changed();
            say(`The server refused this judgement: ${error.message}`);
            continue;
          }
          say("The server does not answer. The judgement is kept in this browser and sent later.");
          return;
        }
        unsent.shift();
        changed();
      }
    });
    return sending;
  }

  // relevant: true, false, or null to take it back
  function judge(t, image, caption, relevant, run) {
    const { dataset } = tiir.site;
    const record = {
      image_id: t.images.id[image], caption_id: t.captions.id[caption], relevant,
      dataset: `${dataset.name}/${dataset.split}`, fingerprint: dataset.fingerprint, run: tiir.runs.name(run), time: new Date().toISOString(),
    };
    kept.set(pair(record), record);
    if (tiir.site.live) unsent.push({ record, body: { image, caption, relevant } });
    changed();
    if (tiir.site.live) send();
    else if (!storage) say("This browser keeps nothing for this page. Export the judgements before you leave.");
  }

  function of(t, image, caption) {
    const record = kept.get(JSON.stringify([t.images.id[image], t.captions.id[caption]]));
    return record ? record.relevant : null;
  }

  // The rows whose query is part of a judged pair.
  function rows(t) {
    const images = new Set();
    const captions = new Set();
    for (const record of counted()) {
      images.add(record.image_id);
      captions.add(record.caption_id);
    }
    const found = new Set();
    t.images.id.forEach((id, n) => images.has(id) && found.add(tiir.rows.rowOf(t, 0, n)));
    t.captions.id.forEach((id, n) => captions.has(id) && found.add(tiir.rows.rowOf(t, 1, n)));
    return found;
  }

  // Two buttons for a pair: relevant or not. Pressed again, the judgement is taken back.
  function buttons(t, image, caption, run, place) {
    const make = (relevant, sign, name) => el("button", {
      type: "button", class: `judge ${relevant ? "yes" : "no"}`, "aria-label": `${name}: place ${place} of ${tiir.runs.name(run)}`, title: name,
      onclick: () => judge(t, image, caption, of(t, image, caption) === relevant ? null : relevant, run),
    }, sign);
    const node = el("span", { class: "judges" }, make(true, "✓", "Relevant"), make(false, "✗", "Not relevant"));
    const draw = () => {
      const now = of(t, image, caption);
      [true, false].forEach((relevant, n) => node.children[n].setAttribute("aria-pressed", String(now === relevant)));
    };
    draw();
    draws.set(node, draw);
    return node;
  }

  function lines() {
    return [...kept.values()].map((record) => `${JSON.stringify(record)}\n`).join("");
  }

  function download() {
    const url = URL.createObjectURL(new Blob([lines()], { type: "application/jsonl" }));
    el("a", { href: url, download: `judgements-${tiir.site.dataset.name.replace(/[^\w-]+/g, "_")}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  async function upload(file) {
    const records = (await file.text()).split("\n").filter((line) => line.trim()).map((line) => {
      try {
        return JSON.parse(line);
      } catch {
        return null;
      }
    });
    const good = records.filter((record) => valid(record) && record.fingerprint === tiir.site.dataset.fingerprint);
    take(good.filter((record) => !(Date.parse(kept.get(pair(record))?.time) > Date.parse(record.time)))); // what was said later holds
    changed();
    const rest = records.length - good.length;
    say(`${good.length} read${rest ? `; ${rest} left out: no judgements of this data set` : ""}.`);
  }

  // The button in the bar: how many there are, and a panel to save and load them.
  function button() {
    const count = el("span", { class: "badge" }, "0");
    const input = el("input", { type: "file", accept: ".jsonl,application/jsonl,text/plain", class: "sr", tabindex: -1, "aria-label": "File of judgements", onchange: () => input.files[0] && upload(input.files[0]).then(() => (input.value = "")) });
    const about = el("p", { class: "small" });
    const dialog = el("dialog", { class: "sheet", "aria-labelledby": "judged-title" },
      el("h2", { id: "judged-title" }, "Judgements"), about,
      el("div", { class: "row" },
        el("button", { type: "button", class: "button primary", onclick: download }, "Export JSONL"),
        !tiir.site.live && el("button", { type: "button", class: "button", onclick: () => input.click() }, "Import"), !tiir.site.live && input,
        el("a", { class: "button", href: tiir.queriesHref({ judged: 1 }), onclick: () => dialog.close() }, "List their queries"),
        el("form", { method: "dialog" }, el("button", { class: "button" }, "Close"))));
    const draw = () => {
      count.textContent = counted().length;
      about.textContent = `${tiir.format.count(counted().length, "judgement")} of this data set. ${tiir.site.live ? "The server keeps them" : "They are kept in this browser"}${unsent.length ? `; ${unsent.length} not sent yet` : ""}. Count them with: tiir evaluate --judgements FILE`;
    };
    draw();
    watchers.add(draw);
    document.body.append(dialog);
    return el("button", { type: "button", class: "button judged", title: "Judgements", onclick: () => dialog.showModal() }, el("span", { class: "long" }, "Judged"), el("span", { class: "short", "aria-hidden": true }, "✓"), count);
  }

  tiir.judge = { start, buttons, button, rows, lines };
})((window.tiir = window.tiir || {}));

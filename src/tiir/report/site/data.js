"use strict";
// Data files are scripts that call tiir.data(name, value): so they load from disk too, where fetch is refused.
(function (tiir) {
  const blocks = new Map();
  const promises = new Map();

  tiir.data = (name, value) => void blocks.set(name, value);

  function fetchScript(name) {
    return new Promise((resolve, reject) => {
      const script = tiir.el("script", { src: `data/${name}.js` });
      const fail = () => {
        promises.delete(name); // another try may go better
        reject(new Error(`data/${name}.js could not be read. Is the folder complete?`));
      };
      script.addEventListener("error", fail);
      script.addEventListener("load", () => (blocks.has(name) ? resolve(blocks.get(name)) : fail()));
      document.head.append(script);
    });
  }

  // A promise of the block's value; each file is read once.
  tiir.load = (name) => {
    if (!promises.has(name)) {
      promises.set(name, blocks.has(name) ? Promise.resolve(blocks.get(name)) : fetchScript(name));
    }
    return promises.get(name);
  };
})((window.tiir = window.tiir || {}));

// The figures, filters, players and the list of runs of a report. The data are in #data; nothing else is loaded.
"use strict";
(() => {
  const COLOURS = ["#1f77b4", "#e07b00", "#2a9d3a", "#c8372d", "#8a63c9", "#96613c", "#d55ca5", "#7a828a"];
  const ROWS = 500; // of the list, at most
  const byId = (id) => document.getElementById(id);
  let data = JSON.parse(byId("data").textContent);
  let plots = [];

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const number = (x) => (x === null ? "–" : String(Number(x.toPrecision(4))));
  const labelOf = (network) => data.labels[network] ?? network;
  const colourOf = (network) => COLOURS[Object.keys(data.labels).indexOf(network) % COLOURS.length];
  const choices = (key) => [...new Set(data.conditions.map((c) => c[key]))].filter((value) => value !== "" && value !== 0);
  const varied = () => {
    const values = {};
    for (const c of data.conditions) for (const [k, v] of Object.entries(c.hyperparameters)) (values[`${c.network} ${k}`] ??= new Set()).add(v);
    return Object.keys(values).filter((k) => values[k].size > 1).map((k) => k.slice(k.lastIndexOf(" ") + 1));
  };
  let searched = varied(); // hyper-parameters of which a network has several values
  const hyper = (condition) => Object.entries(condition.hyperparameters).filter(([k]) => searched.includes(k)).map(([k, v]) => `${k} ${v}`).join(", ");
  const nameOf = (c) => [labelOf(c.network), c.size || "", c.data, hyper(c)].filter(Boolean).join(", ");

  function buildFilters() {
    const form = byId("filters");
    const kept = Object.fromEntries(new FormData(form));
    form.replaceChildren();
    const select = (key, title, values, name = String) => {
      if (values.length < 2) return;
      const box = element("select", { name: key, id: `filter-${key}` }, element("option", { value: "" }, "all"));
      for (const value of values) box.append(element("option", { value: String(value) }, name(value)));
      if (key in kept) box.value = kept[key];
      form.append(element("label", { for: box.id }, title, box));
    };
    select("network", "network", choices("network"), labelOf);
    select("size", "size", choices("size"));
    select("data", data.piece, choices("data"));
    select("hyper", "hyper-parameters", [...new Set(data.conditions.map(hyper))].filter(Boolean));
    const run = element("input", { name: "run", id: "filter-run", type: "number", min: "0", max: String(data.runs - 1), placeholder: "all" });
    run.value = kept.run ?? "";
    form.append(element("label", { for: "filter-run" }, "run", run));
    if (data.lines.length > 1) {
      const line = element("select", { name: "line", id: "filter-line" });
      data.lines.forEach((name, i) => line.append(element("option", { value: String(i) }, name || `error ${i + 1}`)));
      line.value = kept.line ?? String(data.lines.length - 1);
      form.append(element("label", { for: "filter-line" }, "learning curve", line));
    }
  }

  function chosen() {
    const form = Object.fromEntries(new FormData(byId("filters")));
    const fits = (key, value) => !form[key] || form[key] === String(value);
    const conditions = data.conditions.filter(
      (c) => fits("network", c.network) && fits("size", c.size) && fits("data", c.data) && fits("hyper", hyper(c)));
    return { conditions, fitsRun: (run) => fits("run", run), line: Number(form.line ?? 0) };
  }

  function options(host, title, values, log, more) {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    const grid = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    return {
      width: host.clientWidth, height: Math.min(420, Math.max(260, host.clientWidth * 0.45)),
      scales: { x: { time: false, ...(more.range && { range: (u, low, high) => (low <= -0.3 || high - low >= more.range[1] ? more.range : [low, high]) }) }, y: { distr: log ? 3 : 1 } },
      axes: [{ ...axis, ...more.x }, { ...axis, label: title + (log ? " (log scale)" : ""), size: 70,
        values: (_, ticks) => ticks.map((t) => (t === null ? "" : String(Number(t.toPrecision(3))))) }],
      cursor: { drag: { x: true, y: true, uni: 20 }, focus: { prox: 40 } }, focus: { alpha: 0.25 },
      legend: { show: false }, hooks: more.hooks, series: more.series,
    };
  }
  const spans = (values) => values.length > 0 && Math.min(...values.map(Math.abs)) > 0 && values.every((v) => v > 0) &&
    values.reduce((a, b) => Math.max(a, b)) > 10 * values.reduce((a, b) => Math.min(a, b));

  function drawErrors({ conditions, fitsRun }) {
    const host = byId("errors");
    const groups = [...new Set(conditions.map((c) => [c.network, c.size, hyper(c)].join("\n")))];
    const points = [];
    for (const c of conditions) {
      const group = groups.indexOf([c.network, c.size, hyper(c)].join("\n"));
      c.error.forEach((error, i) => {
        if (error !== null && fitsRun(c.shown[i])) points.push({ x: group + (((points.length * 61) % 100) / 100 - 0.5) * 0.6, error, c, run: c.shown[i] });
      });
    }
    host.replaceChildren();
    if (!points.length) { host.append("No run to show."); return; }
    points.sort((a, b) => a.x - b.x);
    const networks = [...new Set(points.map((p) => p.c.network))];
    const columns = [points.map((p) => p.x), ...networks.map((n) => points.map((p) => (p.c.network === n ? p.error : null)))];
    const series = [{}, ...networks.map((n) => ({ label: labelOf(n), stroke: colourOf(n), width: 0, paths: () => null, points: { show: true, size: 6, fill: colourOf(n) } }))];
    const short = (group) => { const [n, s, h] = group.split("\n"); return [labelOf(n), s === "0" ? "" : s, h].filter(Boolean).join("\n"); };
    const said = (u) => {
      const p = u.cursor.idx === null || u.cursor.idx === undefined ? null : points[u.cursor.idx];
      byId("errors-said").textContent = p ? `${nameOf(p.c)}, run ${p.run}: ${data.error} ${number(p.error)}` : "";
    };
    plots.push(new uPlot(options(host, data.error, points, spans(points.map((p) => p.error)), {
      range: [-0.5, groups.length - 0.5],
      x: { splits: () => groups.map((_, i) => i), values: (u, ticks) => ticks.map((t) => (groups.length > Math.max(3, u.width / 90) ? "" : short(groups[t] ?? ""))), size: 64 },
      hooks: { setCursor: [said] }, series,
    }), columns, host));
  }

  function drawCurves({ conditions, fitsRun, line }) {
    const host = byId("curves");
    const lines = conditions.flatMap((c) => c.curve.runs.map((run, i) => ({ c, run, values: c.curve.values[line][i] })).filter((l) => fitsRun(l.run)));
    host.replaceChildren();
    if (!lines.length) { host.append("No learning curve to show."); return; }
    const epochs = [...new Set(conditions.flatMap((c) => c.curve.epochs))].sort((a, b) => a - b);
    const place = new Map(epochs.map((e, i) => [e, i]));
    const columns = [epochs];
    const known = [];
    for (const l of lines) {
      const column = new Array(epochs.length).fill(null);
      l.c.curve.epochs.forEach((e, i) => { column[place.get(e)] = l.values[i]; if (l.values[i] !== null) known.push(l.values[i]); });
      columns.push(column);
    }
    const series = [{}, ...lines.map((l) => ({ label: nameOf(l.c), stroke: colourOf(l.c.network), width: 1, alpha: 0.7, spanGaps: true, points: { show: false } }))];
    const said = (u, i) => {
      byId("curves-said").textContent = i ? `${nameOf(lines[i - 1].c)}, run ${lines[i - 1].run}` : "";
    };
    plots.push(new uPlot(options(host, data.curves, known, spans(known), { x: { label: "epoch" }, hooks: { setSeries: [said] }, series }), columns, host));
  }

  function listRuns({ conditions, fitsRun }) {
    const head = ["network", ...(choices("size").length ? ["size"] : []), ...(choices("data").length ? [data.piece] : []), ...(searched.length ? ["hyper-parameters"] : []), "run", "epochs", data.error, "diverged"];
    const body = element("tbody");
    let count = 0, diverged = 0;
    for (const c of conditions) {
      c.shown.forEach((run, i) => {
        if (!fitsRun(run)) return;
        count += 1;
        diverged += c.diverged[i];
        if (count > ROWS) return;
        const cells = [labelOf(c.network), ...(choices("size").length ? [c.size] : []), ...(choices("data").length ? [c.data] : []), ...(searched.length ? [hyper(c)] : []), run, c.epochs[i], number(c.error[i]), c.diverged[i] ? "yes" : ""];
        body.append(element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell)))));
      });
    }
    byId("rows").replaceChildren(element("thead", {}, element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h)))), body);
    byId("count").textContent = `${count} runs, of which ${diverged} diverged${count > ROWS ? `; the first ${ROWS} are listed` : ""}.`;
  }

  function sound(base64, rate) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const length = bytes.length * Math.max(1, Math.round((2 * rate) / bytes.length)); // a clip of milliseconds, repeated to a second
    const wav = new DataView(new ArrayBuffer(44 + length));
    const text = (at, letters) => [...letters].forEach((letter, i) => wav.setUint8(at + i, letter.charCodeAt(0)));
    text(0, "RIFF"); wav.setUint32(4, 36 + length, true); text(8, "WAVEfmt ");
    wav.setUint32(16, 16, true); wav.setUint16(20, 1, true); wav.setUint16(22, 1, true); wav.setUint32(24, rate, true);
    wav.setUint32(28, 2 * rate, true); wav.setUint16(32, 2, true); wav.setUint16(34, 16, true); text(36, "data"); wav.setUint32(40, length, true);
    for (let i = 0; i < length; i += bytes.length) new Uint8Array(wav.buffer).set(bytes, 44 + i);
    return new Blob([wav.buffer], { type: "audio/wav" });
  }

  function buildSounds() {
    const host = byId("sounds");
    host.replaceChildren();
    if (!data.sounds.length) return;
    host.append(element("h2", {}, "Sounds"), element("p", { class: "hint" }, "The target, and the best output of each network, repeated to a second."));
    const players = element("div", { class: "players" });
    for (const s of data.sounds) {
      const audio = element("audio", { controls: "", preload: "none", "aria-label": s.name, src: URL.createObjectURL(sound(s.samples, s.rate)) });
      players.append(element("figure", { "data-network": s.network, "data-piece": s.data }, element("figcaption", {}, s.name), audio));
    }
    host.append(players);
  }

  function filterSounds() {
    const form = Object.fromEntries(new FormData(byId("filters")));
    for (const figure of document.querySelectorAll("#sounds figure")) {
      const { network, piece } = figure.dataset;
      figure.hidden = Boolean((form.network && network && network !== form.network) || (form.data && piece !== form.data));
    }
  }

  function render() {
    for (const plot of plots) plot.destroy();
    plots = [];
    const some = data.conditions.length > 0;
    byId("figures").hidden = byId("runs").hidden = !some;
    if (!some) return;
    const what = chosen();
    drawErrors(what);
    drawCurves(what);
    listRuns(what);
    filterSounds();
  }

  function start() {
    searched = varied();
    byId("left-out").textContent = data.notes.join(" ");
    byId("key").replaceChildren(...Object.entries(data.labels).map(([network, label]) => {
      const made = element("span", {}, element("i", {}), label);
      made.firstChild.style.background = colourOf(network);
      return made;
    }));
    buildFilters();
    buildSounds();
    render();
  }

  async function poll(stamp) {
    let next = stamp;
    try {
      next = await (await fetch("stamp")).text();
      if (next !== stamp) {
        const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
        for (const id of ["summary", "listings", "made"]) byId(id).replaceChildren(...page.getElementById(id).childNodes);
        data = JSON.parse(page.getElementById("data").textContent);
        start();
      }
    } catch { /* the server is gone, or will be there again */ }
    setTimeout(poll, 2000, next);
  }

  byId("filters").addEventListener("input", render);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; render(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  start();
  if (data.live !== null) poll(data.live);
})();

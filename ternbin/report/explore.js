"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const points = data.points.map(([id, at, figures, front, fidelity, broken, busy, binds]) => {
    const value = {};
    data.axes.forEach((name, i) => (value[name] = at[i]));
    data.figures.forEach((name, i) => (value[name] = figures[i]));
    return { id, value, front, fidelity, broken, busy, binds };
  });
  const names = [...data.axes, ...data.figures];
  const el = (id) => document.getElementById(id);
  const make = (tag, attrs = {}, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const short = (v) => (typeof v === "number" ? String(+v.toPrecision(4)) : String(v));
  const title = (p) => (p.front ? "point" + p.front : p.id) + ": " + p.fidelity;
  const shade = (p) => (p.front ? "#d9480f" : p.broken.length ? "#b8c0c8" : "#1971c2");

  // Where a value stands on an axis, from 0 to 1: numbers by size (or by its logarithm), others evenly spaced in order.
  function scale(name) {
    const all = points.map((p) => p.value[name]);
    if (all.every((v) => typeof v === "number")) {
      let low = Infinity, high = -Infinity;
      for (const v of all) { low = Math.min(low, v); high = Math.max(high, v); }
      const log = low > 0 && high / low > 8;
      const f = log ? Math.log : (v) => v, inverse = log ? Math.exp : (v) => v;
      const width = f(high) - f(low);
      const place = (v) => (width ? (f(v) - f(low)) / width : 0.5);
      const distinct = [...new Set(all)].sort((a, b) => a - b);
      const ticks = distinct.length <= 6 ? distinct : [0, 0.25, 0.5, 0.75, 1].map((t) => inverse(f(low) + t * width));
      return { place, ticks };
    }
    const distinct = [...new Set(all)].sort();
    return { place: (v) => (distinct.indexOf(v) + 0.5) / distinct.length, ticks: distinct };
  }

  function tip(event, p) {
    const box = el("tip");
    if (!p) { box.style.display = "none"; return; }
    const lines = [title(p), ...data.axes.map((n) => `${n} ${short(p.value[n])}`), ...data.objectives.map((n) => `${n} ${short(p.value[n])}`)];
    box.textContent = lines.join("\n");
    box.style.display = "block";
    box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8) + "px";
  }

  let chosen = null;
  function open(p) {
    chosen = p;
    const box = el("point");
    box.textContent = "";
    box.style.display = "block";
    const add = (tag, text, to = box) => { const n = document.createElement(tag); n.textContent = text; to.append(n); return n; };
    add("b", title(p) + (p.broken.length ? ", breaks the bound of " + p.broken.join(", ") : ""));
    add("div", data.axes.map((n) => `${n} ${short(p.value[n])}`).join(", "));
    for (const [phase, shares] of Object.entries(p.busy)) {
      const parts = Object.entries(shares).map(([n, s]) => `${n} ${(100 * s).toFixed(0)}%`).join(", ");
      add("div", `${phase}: ${p.binds[phase]} binds; busy: ${parts}`);
    }
    const body = document.createElement("table");
    for (const n of data.figures) {
      const row = add("tr", "", body);
      add("td", n, row); add("td", short(p.value[n]), row).className = "n"; add("td", data.words[n] || "", row);
    }
    box.append(body);
    const file = p.front && data.files["point" + p.front];
    if (file) add("pre", file);
    draw();
  }

  const mouse = (node, p) => {
    node.addEventListener("mousemove", (event) => tip(event, p));
    node.addEventListener("mouseleave", (event) => tip(event, null));
    node.addEventListener("click", () => open(p));
    node.style.cursor = "pointer";
  };

  const controls = {};
  function select(label, first) {
    const node = document.createElement("select");
    for (const n of names) node.append(new Option(n, n, false, n === first));
    node.addEventListener("change", draw);
    const text = document.createElement("label");
    text.append(label + " ", node);
    el("controls").append(text);
    controls[label] = node;
  }
  const [first, second] = data.objectives.length > 1 ? data.objectives : [data.objectives[0], data.figures[0]];
  select("across", first);
  select("up", second);

  const kept = {}; // axis -> [from, to] of its length, of a drag in the parallel coordinates
  const lines = [...data.axes, ...data.objectives];
  const scales = Object.fromEntries(names.map((n) => [n, scale(n)]));
  const passes = (p) => Object.entries(kept).every(([n, [from, to]]) => {
    const at = scales[n].place(p.value[n]);
    return from <= at && at <= to;
  });
  const order = [...points].sort((a, b) => (a.front ? 1 : 0) - (b.front ? 1 : 0));

  function scatter() {
    const svg = el("scatter"), w = svg.clientWidth || 1000, h = 440, left = 70, bottom = 44;
    svg.textContent = "";
    const x = controls.across.value, y = controls.up.value;
    const px = (v) => left + 10 + scales[x].place(v) * (w - left - 40), py = (v) => h - bottom - 10 - scales[y].place(v) * (h - bottom - 30);
    for (const t of scales[x].ticks) {
      svg.append(make("line", { x1: px(t), x2: px(t), y1: 10, y2: h - bottom, stroke: "#eef1f4" }));
      svg.append(make("text", { x: px(t), y: h - bottom + 16, "text-anchor": "middle", "font-size": 11, fill: "#57606a" }, short(t)));
    }
    for (const t of scales[y].ticks) {
      svg.append(make("line", { x1: left, x2: w - 10, y1: py(t), y2: py(t), stroke: "#eef1f4" }));
      svg.append(make("text", { x: left - 6, y: py(t) + 4, "text-anchor": "end", "font-size": 11, fill: "#57606a" }, short(t)));
    }
    svg.append(make("text", { x: w / 2, y: h - 8, "text-anchor": "middle", "font-size": 13 }, data.words[x] || x));
    svg.append(make("text", { x: 14, y: h / 2, "text-anchor": "middle", "font-size": 13, transform: `rotate(-90 14 ${h / 2})` }, data.words[y] || y));
    for (const p of order) {
      const on = passes(p);
      const at = { cx: px(p.value[x]), cy: py(p.value[y]) };
      const dot = make("circle", { ...at, r: p === chosen ? 7 : p.front ? 5 : 3, fill: shade(p), opacity: on ? (p.front ? 1 : 0.6) : 0.07 });
      if (p.fidelity !== "model") { dot.setAttribute("stroke", "#1b1f24"); dot.setAttribute("stroke-width", 2.5); }
      mouse(dot, p);
      svg.append(dot);
    }
  }

  function parallel() {
    const svg = el("parallel"), w = svg.clientWidth || 1000, h = 320, top = 34, bottom = 12;
    svg.textContent = "";
    const px = (i) => 50 + (lines.length > 1 ? (i * (w - 100)) / (lines.length - 1) : 0);
    const py = (at) => h - bottom - at * (h - top - bottom);
    for (const p of order) {
      const d = lines.map((n, i) => `${i ? "L" : "M"}${px(i).toFixed(1)} ${py(scales[n].place(p.value[n])).toFixed(1)}`).join("");
      const on = passes(p);
      const line = make("path", { d, fill: "none", stroke: p === chosen ? "#1b1f24" : shade(p), "stroke-width": p === chosen ? 3 : p.front ? 1.6 : 0.8, opacity: on ? (p.front ? 0.9 : 0.25) : 0.03 });
      if (on) mouse(line, p);
      svg.append(line);
    }
    lines.forEach((n, i) => {
      const text = make("text", { x: px(i), y: i % 2 ? 26 : 12, "text-anchor": "middle", "font-size": 11 }, n);
      svg.append(make("line", { x1: px(i), x2: px(i), y1: top, y2: h - bottom, stroke: "#8c959f" }), text);
      for (const t of scales[n].ticks) svg.append(make("text", { x: px(i) + 4, y: py(scales[n].place(t)) + 3, "font-size": 10, fill: "#57606a" }, short(t)));
      if (kept[n]) svg.append(make("rect", { x: px(i) - 6, width: 12, y: py(kept[n][1]), height: Math.max(2, py(kept[n][0]) - py(kept[n][1])), fill: "#d9480f", opacity: 0.35 }));
      const strip = make("rect", { x: px(i) - 9, width: 18, y: top - 4, height: h - top, fill: "transparent" });
      strip.style.cursor = "ns-resize";
      strip.addEventListener("mousedown", (event) => {
        event.preventDefault();
        const box = svg.getBoundingClientRect();
        const at = (e) => Math.min(1, Math.max(0, (h - bottom - (e.clientY - box.top) * (h / box.height)) / (h - top - bottom)));
        const from = at(event);
        const up = (e) => {
          removeEventListener("mouseup", up);
          const to = at(e);
          if (Math.abs(to - from) < 0.02) delete kept[n];
          else kept[n] = [Math.min(from, to) - 1e-9, Math.max(from, to) + 1e-9];
          draw();
        };
        addEventListener("mouseup", up);
      });
      svg.append(strip);
    });
  }

  let sorted = null, downwards = false;
  function list() {
    const node = el("all"), columns = ["point", ...lines, "rests on"];
    const value = (p, c) => (c === "point" ? p.front || Infinity : c === "rests on" ? p.fidelity : p.value[c]);
    const rows = points.filter(passes);
    if (sorted) rows.sort((a, b) => { const s = value(a, sorted), t = value(b, sorted); return (s < t ? -1 : s > t ? 1 : 0) * (downwards ? -1 : 1); });
    node.textContent = "";
    const head = node.createTHead().insertRow(), body = node.createTBody();
    for (const c of columns) {
      const cell = document.createElement("th");
      cell.textContent = c + (c === sorted ? (downwards ? " ▼" : " ▲") : "");
      cell.addEventListener("click", () => { downwards = c === sorted && !downwards; sorted = c; list(); });
      head.append(cell);
    }
    for (const p of rows.slice(0, 1000)) {
      const row = body.insertRow();
      row.className = p === chosen ? "on" : "";
      for (const c of columns) row.insertCell().textContent = c === "point" ? (p.front ? "point" + p.front : p.id) : short(value(p, c));
      row.addEventListener("click", () => open(p));
    }
  }

  function draw() { scatter(); parallel(); list(); }
  addEventListener("resize", draw);
  draw();
})();

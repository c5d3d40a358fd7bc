// Runs the script of a page of ternbin explore on the least of a document that it needs, and prints what came of it as JSON.
import fs from "fs";

const html = fs.readFileSync(process.argv[2], "utf8");
const data = html.match(/id=data>(.*?)<\/script>/s)[1];
const script = html.match(/<script>("use strict".*?)<\/script>/s)[1];

class Element {
  constructor() {
    Object.assign(this, { style: {}, children: [], attributes: {}, listeners: {}, value: "", clientWidth: 900, text: "" });
  }
  setAttribute(name, value) {
    if (value === undefined || String(value).includes("NaN")) throw Error(`${name} is ${value}`);
    this.attributes[name] = value;
  }
  append(...more) {
    this.children.push(...more);
    for (const child of more) if (child.selected) this.value = child.option;
  }
  addEventListener(name, call) { this.listeners[name] = call; }
  set textContent(text) { this.text = text; this.children = []; }
  get textContent() { return this.text + this.children.map((child) => child.textContent ?? child).join("\n"); }
  _new() { const child = new Element(); this.children.push(child); return child; }
  createTHead() { return this._new(); }
  createTBody() { return this._new(); }
  insertRow() { return this._new(); }
  insertCell() { return this._new(); }
  getBoundingClientRect() { return { top: 0, height: 320 }; }
}
class Option extends Element {
  constructor(label, option, _, selected) { super(); Object.assign(this, { option, selected }); }
}

const known = {};
const element = (id) => (known[id] ??= Object.assign(new Element(), id === "data" ? { text: data } : {}));
const page = { getElementById: element, createElement: () => new Element(), createElementNS: () => new Element() };
const window = {};
const listen = (name, call) => { window[name] = call; };
new Function("document", "Option", "addEventListener", "removeEventListener", "innerWidth", "innerHeight", script)(
  page, Option, listen, () => {}, 1000, 800);

const dots = () => element("scatter").children.filter((child) => child.listeners.click);
const best = dots().at(-1);
best.listeners.mousemove({ clientX: 1, clientY: 1 });
const tip = element("tip").textContent;
best.listeners.click();
const opened = element("point").textContent;
const axis = element("parallel").children.find((child) => child.listeners.mousedown);
axis.listeners.mousedown({ preventDefault() {}, clientY: 315 });
window.mouseup({ clientY: 200 });
const kept = dots().filter((dot) => dot.attributes.opacity > 0.1).length;
console.log(JSON.stringify({ dots: dots().length, tip, opened, kept }));

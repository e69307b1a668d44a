"use strict";
const { clusters, features, lines, pairs } = JSON.parse(document.getElementById("data").textContent);
const canvas = document.querySelector("canvas"), panel = document.getElementById("panel");
const search = document.getElementById("search"), pen = canvas.getContext("2d");
// Okabe and Ito's colours, told apart with any colour vision; clusters also carry their number.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const byLatent = new Map(features.map(f => [f.latent, f]));
const pairKey = (i, j) => `${Math.min(i, j)}-${Math.max(i, j)}`;
const pairOf = new Map(pairs.map(latents => [pairKey(...latents), latents]));
const strongest = lines.reduce((most, l) => Math.max(most, l[2]), 1e-12);
const membersOf = clusters.map(() => []);
for (const f of features) if (f.cluster >= 0) membersOf[f.cluster].push(f);
const discs = membersOf.map(members => {
  const x = members.reduce((sum, f) => sum + f.x, 0) / members.length;
  const y = members.reduce((sum, f) => sum + f.y, 0) / members.length;
  return { x, y, r: Math.max(...members.map(f => Math.hypot(f.x - x, f.y - y))) + 0.7, members };
});
const view = { x: 0, y: 0, scale: 1 };  // the map's point in the middle, and pixels per unit
const LISTED = 200;  // in a list, until more are asked for
let chosen = { cluster: -1, latents: new Set() };
let pointed = false;  // whether that was clicked on the map, which then stays where it is

const legible = text => text.replace(/[\p{Cc}\p{Cf}]/gu, c =>
  c === "\u200c" || c === "\u200d" ? c : `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
const visible = text => legible(text.replace(/\n/g, "↵").replace(/^ /, "␣"));
const colour = c => c < 0 ? "#999" : COLOURS[c % COLOURS.length];
const ink = () => getComputedStyle(document.body).color;

function element(tag, content, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...[content].flat());
  return made;
}

function button(label, hash) {
  return element("button", label, { type: "button", onclick: () => { location.hash = hash; } });
}

// ---- texts, which are read where somebody looks

const elements = document.querySelectorAll(".texts"), read = new Map();

function texts(part) {
  if (!read.has(part)) read.set(part, JSON.parse(elements[part].textContent));
  return read.get(part);
}

const textsOf = f => texts(f.part).features[f.latent];
const detailsOf = latents => texts(byLatent.get(latents[0]).part).pairs[pairKey(...latents)];

// ---- drawing

const toScreen = (x, y) => [
  (x - view.x) * view.scale + canvas.clientWidth / 2, (y - view.y) * view.scale + canvas.clientHeight / 2];
const toMap = (px, py) => [
  (px - canvas.clientWidth / 2) / view.scale + view.x, (py - canvas.clientHeight / 2) / view.scale + view.y];

let asked = 0;
const draw = () => { asked ||= requestAnimationFrame(() => { asked = 0; paint(); }); };

function paint() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const seen = (x, y, margin) => x > -margin && y > -margin && x < width + margin && y < height + margin;
  const crosses = (x, y, u, v) => Math.max(x, u) > 0 && Math.max(y, v) > 0 && Math.min(x, u) < width && Math.min(y, v) < height;
  const line = ink();
  for (const [i, j, strength] of lines) {
    const a = byLatent.get(i), b = byLatent.get(j), marked = chosen.latents.has(i) && chosen.latents.has(j);
    const [x, y] = toScreen(a.x, a.y), [u, v] = toScreen(b.x, b.y);
    if (!crosses(x, y, u, v)) continue;
    pen.strokeStyle = marked ? "#d55e00" : line;
    pen.globalAlpha = marked ? 0.9 : 0.06 + 0.3 * strength / strongest;
    pen.lineWidth = marked ? 2 : 1;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(u, v);
    pen.stroke();
  }
  discs.forEach((disc, c) => {
    const [x, y] = toScreen(disc.x, disc.y);
    if (!seen(x, y, disc.r * view.scale)) return;
    pen.globalAlpha = c === chosen.cluster ? 0.35 : 0.15;
    pen.fillStyle = colour(c);
    pen.beginPath();
    pen.arc(x, y, disc.r * view.scale, 0, 7);
    pen.fill();
    pen.globalAlpha = 1;
    if (c === chosen.cluster) { pen.strokeStyle = line; pen.lineWidth = 2; pen.stroke(); }
  });
  const radius = Math.max(1.5, Math.min(7, 0.28 * view.scale));
  for (const f of features) {
    const [x, y] = toScreen(f.x, f.y);
    if (!seen(x, y, 200)) continue;
    pen.fillStyle = colour(f.cluster);
    pen.strokeStyle = line;
    pen.lineWidth = chosen.latents.has(f.latent) ? 2.5 : 0.6;
    pen.beginPath();
    pen.arc(x, y, chosen.latents.has(f.latent) ? radius + 2 : radius, 0, 7);
    pen.fill();
    pen.stroke();
    if (view.scale > 28 && f.tokens.length) {
      pen.fillStyle = line;
      pen.font = "11px system-ui, sans-serif";
      pen.fillText(visible(f.tokens[0]), x + radius + 2, y + 4);
    }
  }
  nameDiscs();
}

function nameDiscs() {  // where names would lie on one another, the larger cluster's alone
  pen.fillStyle = ink();
  pen.font = "600 12px system-ui, sans-serif";
  const taken = [];
  const order = discs.map((_, c) => c).sort((a, b) => (b === chosen.cluster) - (a === chosen.cluster) || a - b);
  for (const c of order) {
    const [x, y] = toScreen(discs[c].x, discs[c].y - discs[c].r);
    if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) continue;
    const width = 8 * String(c).length;
    if (taken.some(t => Math.abs(t.x - x) < (t.width + width) / 2 + 2 && Math.abs(t.y - y) < 13)) continue;
    taken.push({ x, y, width });
    pen.fillText(String(c), x - width / 2, y - 2);
  }
}

function frame(items) {
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { x, y, r } of items) {
    [left, right] = [Math.min(left, x - r), Math.max(right, x + r)];
    [top, bottom] = [Math.min(top, y - r), Math.max(bottom, y + r)];
  }
  view.x = (left + right) / 2;
  view.y = (top + bottom) / 2;
  view.scale = 0.92 * Math.min(canvas.clientWidth / (right - left), canvas.clientHeight / (bottom - top));
}

function reveal() {  // what was chosen elsewhere than on the map: in the middle, and large enough to see
  const found = chosen.cluster >= 0 ? [discs[chosen.cluster]]
    : features.filter(f => chosen.latents.has(f.latent)).map(f => ({ x: f.x, y: f.y, r: 2 }));
  if (!found.length) return;
  const before = view.scale;
  frame(found);
  view.scale = Math.min(view.scale, Math.max(before, 24));
}

const frameAll = () => frame(features.map(f => ({ x: f.x, y: f.y, r: 1 })));

function zoom(factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
  const [x, y] = toMap(px, py);
  view.scale = Math.max(0.5, Math.min(200, view.scale * factor));
  const [nx, ny] = toMap(px, py);
  view.x += x - nx;
  view.y += y - ny;
  draw();
}

// ---- what is beside the map

function clusterButton(c) {
  const tokens = [...new Set(discs[c].members.map(f => f.tokens[0]))].slice(0, 6).map(visible).join(" ");
  const dot = element("span", "", { className: "dot", style: `background:${colour(c)}` });
  return element("li", button([dot, `${c} · ${discs[c].members.length} features · ${tokens}`], `cluster-${c}`));
}

const inText = token => legible(token.replace(/\n/g, "↵"));

function contextLine(context) {
  const pieces = context.tokens.map((token, k) =>
    context.activations[k] > 0 ? element("b", inText(token), { title: context.activations[k] }) : inText(token));
  return element("p", pieces, { className: "context" });
}

function pairButton(pair) {
  const names = pair.map(i => `${i} ${visible(byLatent.get(i).tokens[0] ?? "")}`);
  return element("li", button(names.join(" × "), `pair-${pairKey(...pair)}`));
}

function featureButton(f) {
  return element("li", button(`${f.latent} ${f.tokens.map(visible).join("  ")}`, `feature-${f.latent}`));
}

function part(title, items, make) {  // nothing where there is nothing to list
  return items.length ? [element("h3", title), list(items, make)] : [];
}

function list(items, make) {  // the first ones, and the others when they are asked for
  const shown = element("ul", items.slice(0, LISTED).map(make));
  if (items.length > LISTED) {
    const more = element("button", `${items.length - LISTED} more`, { type: "button" });
    more.onclick = () => more.parentElement.replaceWith(...items.slice(LISTED).map(make));
    shown.append(element("li", more));
  }
  return shown;
}

function show(...content) {
  const within = panel.contains(document.activeElement);  // the button that was pressed goes; stay beside it
  panel.replaceChildren(...content.flat());
  panel.scrollTop = 0;
  if (within) {
    const title = panel.querySelector("h2");
    title.tabIndex = -1;
    title.focus();
  }
  panel.querySelector("[data-current]")?.scrollIntoView();
}

function showAll() {
  show(
    element("h2", `${clusters.length} clusters, ${features.length} features`),
    element("p", "Drag to move, turn the wheel to zoom, click a disc, a feature or a line. Lines join the features that interact most; Escape leads back here.", { className: "note" }),
    list(clusters.map((_, c) => c), clusterButton),
    part("In no cluster", features.filter(f => f.cluster < 0), featureButton));
}

function showCluster(c, latent) {
  const { members } = discs[c], inside = new Set(members.map(f => f.latent));
  const { accuracy } = clusters[c];
  const judged = accuracy === null ? "not judged" : `the judge is right in ${Math.round(100 * accuracy)} % of trials`;
  const own = pairs.filter(p => p.every(i => inside.has(i)));
  const out = pairs.filter(p => p.some(i => inside.has(i)) && !own.includes(p));
  const neurons = new Map();
  for (const n of own.flatMap(p => detailsOf(p).neurons)) {
    const name = `block ${n.block}, neuron ${n.neuron}`;
    neurons.set(name, (neurons.get(name) ?? 0) + 1);
  }
  const most = [...neurons].sort((a, b) => b[1] - a[1]).slice(0, 8);
  show(
    button("← all clusters", ""), element("h2", `Cluster ${c}: ${members.length} features, ${judged}`),
    part("Pairs that interact", own, pairButton),
    part("Neurons where they meet", most,
      ([name, count]) => element("li", `${name} (${count} pair${count > 1 ? "s" : ""})`)),
    element("h3", "Features"),
    members.map(f => featureBlock(f, f.latent === latent)),
    part("Pairs with other clusters", out, pairButton));
}

function showFeature(f) {
  show(
    button("← all clusters", ""), element("h2", `Feature ${f.latent}, in no cluster`), featureBlock(f),
    part("Pairs that interact", pairs.filter(p => p.includes(f.latent)), pairButton));
}

function featureBlock(f, current) {
  const { contexts, promoted } = textsOf(f);
  const block = element("div", element("p", [element("b", `${f.latent} `), f.tokens.map(visible).join("  ")]));
  if (f.description) block.append(element("p", f.description));
  block.append(...contexts.map(contextLine));
  if (promoted.length)
    block.append(element("p", `raises the logits of ${promoted.map(visible).join("  ")}`, { className: "note" }));
  if (current) block.dataset.current = "";
  return block;
}

function showPair(key) {
  const latents = pairOf.get(key), pair = detailsOf(latents), [one, other] = latents.map(i => byLatent.get(i));
  const back = [one, other].map(f => f.cluster).filter((c, k, both) => c >= 0 && both.indexOf(c) === k);
  show(
    button("← all clusters", ""), back.map(c => button(`← cluster ${c}`, `cluster-${c}`)),
    element("h2", `Features ${one.latent} and ${other.latent}`),
    part("Neurons where they meet", pair.neurons, n =>
      element("li", `block ${n.block}, neuron ${n.neuron}: ${(100 * n.part).toFixed(1)} % of their interaction`)),
    part("Tokens where they meet", pair.tokens, t =>
      element("li", [inText(t.before), element("b", inText(t.token))], { className: "context" })),
    element("h3", "The two features"), featureBlock(one), featureBlock(other));
}

function find(words) {
  const wanted = words.trim().toLowerCase();
  const is = f => String(f.latent) === wanted || f.tokens.some(t => t.trim().toLowerCase() === wanted);
  const begins = f => f.tokens.some(t => t.trim().toLowerCase().startsWith(wanted));
  const exact = wanted ? features.filter(is) : [];
  const hits = wanted ? [...exact, ...features.filter(f => begins(f) && !is(f))] : [];
  chosen = { cluster: -1, latents: new Set(hits.map(f => f.latent)) };
  if (!wanted) showAll();
  else show(
    element("h2", `${hits.length} feature${hits.length === 1 ? "" : "s"}: ${words}`),
    list(hits, featureButton));
  if (!wanted) frameAll();
  else if (hits.length) reveal();
  draw();
}

function follow() {
  const [kind, first, second] = decodeURIComponent(location.hash.slice(1)).split("-");
  if (kind === "cluster" && discs[first]) {
    chosen = { cluster: Number(first), latents: new Set() };
    showCluster(Number(first));
  } else if (kind === "pair" && pairOf.has(`${first}-${second}`)) {
    chosen = { cluster: -1, latents: new Set([Number(first), Number(second)]) };
    showPair(`${first}-${second}`);
  } else if (kind === "feature" && byLatent.has(Number(first))) {
    const f = byLatent.get(Number(first));
    chosen = { cluster: f.cluster, latents: new Set([f.latent]) };
    if (f.cluster >= 0) showCluster(f.cluster, f.latent);
    else showFeature(f);
  } else if (kind === "find") {
    search.value = first;
    find(first);
  } else {
    chosen = { cluster: -1, latents: new Set() };
    showAll();
  }
  if (!pointed) reveal();
  pointed = false;
  draw();
}

// ---- the hand

function hit(px, py) {
  const [x, y] = toMap(px, py), near = 6 / view.scale;
  const f = features.find(g => Math.hypot(g.x - x, g.y - y) < Math.max(0.3, near));
  if (f) return `feature-${f.latent}`;
  for (const [i, j] of lines) {
    if (!pairOf.has(pairKey(i, j))) continue;
    const a = byLatent.get(i), b = byLatent.get(j), dx = b.x - a.x, dy = b.y - a.y;
    const t = Math.max(0, Math.min(1, ((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy)));
    if (Math.hypot(a.x + t * dx - x, a.y + t * dy - y) < near / 2) return `pair-${pairKey(i, j)}`;
  }
  const c = discs.findIndex(d => Math.hypot(d.x - x, d.y - y) < d.r);
  return c < 0 ? "" : `cluster-${c}`;
}

let held = null;
canvas.addEventListener("pointerdown", e => {
  held = { x: e.offsetX, y: e.offsetY, moved: false };
  canvas.setPointerCapture(e.pointerId);
});
canvas.addEventListener("pointermove", e => {
  if (!held) {
    const f = byLatent.get(Number(hit(e.offsetX, e.offsetY).match(/^feature-(.*)/)?.[1]));
    canvas.title = f ? `${f.latent} ${f.tokens.map(visible).join("  ")}` : "";
    return;
  }
  const dx = e.offsetX - held.x, dy = e.offsetY - held.y;
  if (!held.moved && Math.hypot(dx, dy) < 4) return;
  view.x -= dx / view.scale;
  view.y -= dy / view.scale;
  held = { x: e.offsetX, y: e.offsetY, moved: true };
  draw();
});
canvas.addEventListener("pointerup", e => {
  if (held && !held.moved) {
    const hash = hit(e.offsetX, e.offsetY);
    pointed = hash !== decodeURIComponent(location.hash.slice(1));
    location.hash = hash;
  }
  held = null;
});
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  zoom(Math.exp(-e.deltaY / 400), e.offsetX, e.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", e => {
  const step = 60 / view.scale;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (e.key in moves) { view.x += moves[e.key][0]; view.y += moves[e.key][1]; draw(); }
  else if (e.key === "+" || e.key === "=") zoom(1.25);
  else if (e.key === "-") zoom(0.8);
  else if (e.key === "0") { frameAll(); draw(); }
  else return;
  e.preventDefault();
});
document.addEventListener("keydown", e => {
  if (e.key !== "Escape") return;
  search.value = "";
  location.hash = "";
  frameAll();
  follow();
});
search.addEventListener("input", () => find(search.value));
search.addEventListener("keydown", e => {
  if (e.key === "Enter") panel.querySelector("li button")?.click();
});
for (const one of document.querySelectorAll("[data-zoom]")) {
  const factor = Number(one.dataset.zoom);
  one.addEventListener("click", () => factor ? zoom(factor) : (frameAll(), draw()));
}
document.getElementById("png").addEventListener("click", () => canvas.toBlob(blob => {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: "clusters.png" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}));
window.addEventListener("themechange", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
window.addEventListener("hashchange", follow);
window.addEventListener("resize", draw);
frameAll();
follow();

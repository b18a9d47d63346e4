"use strict";
// Draws only the images near the view: each line of the list has the same height, so that what is where can be
// computed. All text goes in as text; nothing is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const list = at("images");
const HIGHEST = 15e6; // pixels; browsers end a page's height somewhat above
const drawn = new Map(); // number of a part -> its li
let columns = 2; // images a line
let parts = []; // of sources, in order: {line, column, source, first, images: [number within the source]}
let lines = []; // line -> number of its first part
let order = []; // all images that the filters leave: [source, image]
let height = 1; // of a line, in pixels
let wide = 0; // of the list, when it was last arranged

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className || "";
  if (text !== undefined) made.textContent = text;
  return made;
}

const kindOf = (variant) => (variant === 0 ? "original" : `variant ${variant}`);
const likeness = (ssim, places) => (ssim === null ? "" : `SSIM ${ssim.toFixed(places)}`);
const share = (value, of) => (value === undefined || value === null ? "" : `${(100 * value).toFixed(1)} % ${of}`);
const stem = (source) => source.name.slice(source.name.lastIndexOf("/") + 1);

// A button with an image and what is known of it; in a strip with the source's image beside it.
function tile(source, number, beside) {
  const { images } = data.sources[source];
  const [variant, url, parameters, ssim] = images[number];
  const button = element("button", variant === 0 ? "tile original" : "tile");
  button.type = "button";
  button.dataset.source = source;
  button.dataset.image = number;
  if (beside) {
    const both = element("span", "both");
    both.append(picture(images.find((other) => other[0] === 0)[1]), picture(url));
    button.append(both);
  } else {
    button.append(picture(url));
  }
  button.append(element("span", "aside", `${stem(data.sources[source])}, `), element("span", "kind", kindOf(variant)));
  button.append(element("span", "drawn", [likeness(ssim, 2), parameters].filter(Boolean).join(". ")));
  return button;
}

function picture(url) {
  const missing = element("span", "missing", "not on disk");
  if (url === null) return missing;
  const image = element("img");
  image.alt = "";
  image.decoding = "async";
  image.addEventListener("error", () => image.replaceWith(missing));
  image.src = data.base + url;
  return image;
}

function arrange() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  wide = list.clientWidth;
  const chosen = choose();
  const fit = Math.max(2, Math.floor(wide / (wide < 40 * rem ? 8 * rem : 10 * rem)));
  // One column more, if that leaves fewer places empty.
  const packed = [fit, fit + (fit > 3 ? 1 : 0)].map((count) => ({ columns: count, ...pack(chosen, count) }));
  packed.sort((one, two) => one.lines.length * one.columns - two.lines.length * two.columns);
  ({ columns, parts, lines } = packed[0]);
  order = chosen.flatMap(([source, images]) => images.map((image) => [source, image]));
  height = Math.ceil((wide / columns - 1.2 * rem) * data.aspect + 11.2 * rem);
  const fits = Math.min(lines.length, Math.floor(HIGHEST / height));
  const total = data.sources.reduce((sum, source) => sum + source.images.length, 0);
  at("count").value = `${order.length.toLocaleString("en")} of ${total.toLocaleString("en")} images`;
  if (fits < lines.length) {
    parts.length = lines[fits];
    lines.length = fits;
    at("count").value += "; too many for one page, filter to see the last";
  }
  list.style.height = `${lines.length * height}px`;
  drawn.forEach((item) => item.remove());
  drawn.clear();
  draw();
}

// What the filters leave: [source, its images] of each source with any.
function choose() {
  const [split, label, kind] = ["split", "label", "kind"].map((id) => at(id).value);
  const name = at("name").value.trim().toLowerCase();
  const chosen = [];
  data.sources.forEach((source, number) => {
    if ((split && source.split !== split) || (label && source.label !== Number(label))) return;
    if (name && !source.name.toLowerCase().includes(name) && !source.group.toLowerCase().includes(name)) return;
    const images = [...source.images.keys()].filter(
      (image) => !kind || (source.images[image][0] === 0) === (kind === "original"),
    );
    if (images.length) chosen.push([number, images]);
  });
  return sorted(chosen);
}

// By a measure: each image by itself, without those that weren't compared.
function sorted(chosen) {
  const measure = Number(at("order").value);
  if (!measure) return chosen;
  const value = ([source, [image]]) => data.sources[source].images[image][measure] ?? null; // null: not compared
  const single = chosen.flatMap(([source, images]) => images.map((image) => [source, [image]]));
  const sign = measure > 4 ? -1 : 1; // of shares the largest first
  return single.filter((one) => value(one) !== null).sort((one, two) => sign * (value(one) - value(two)));
}

// Sources side by side; one with more images than a line has places goes on in the next.
function pack(chosen, places) {
  const parts = [];
  const lines = [];
  let column = places; // full, so that the first source starts a line
  for (const [source, images] of chosen) {
    for (let start = 0; start < images.length; start += places) {
      const some = images.slice(start, start + places);
      if (column + some.length > places) {
        column = 0;
        lines.push(parts.length);
      }
      parts.push({ line: lines.length - 1, column, source, first: start === 0, images: some });
      column += some.length;
    }
  }
  return { parts, lines };
}

function draw() {
  const top = list.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((-top - innerHeight) / height));
  const last = Math.min(lines.length, Math.ceil((3 * innerHeight - top) / height)); // a screen more above, two below
  const begin = lines[first] ?? parts.length;
  const end = last < lines.length ? lines[Math.max(0, last)] : parts.length;
  const busy = at("pair").open || document.activeElement;
  for (const [number, item] of drawn) {
    if ((number < begin || number >= end) && busy !== true && !item.contains(busy)) {
      item.remove();
      drawn.delete(number);
    }
  }
  for (let number = begin; number < end; number++) {
    if (drawn.has(number)) continue;
    const item = itemOf(number);
    const after = [...list.children].find((other) => Number(other.dataset.part) > number);
    list.insertBefore(item, after || null); // in order, for those who go by Tab
    drawn.set(number, item);
  }
}

function itemOf(number) {
  const part = parts[number];
  const source = data.sources[part.source];
  const item = element("li");
  item.dataset.part = number;
  item.setAttribute("aria-setsize", parts.length);
  item.setAttribute("aria-posinset", number + 1);
  item.style.width = `${(100 * part.images.length) / columns}%`;
  item.style.height = `${height}px`;
  item.style.left = `${(100 * part.column) / columns}%`;
  item.style.top = `${part.line * height}px`;
  const box = element("div", "source");
  const title = element("div", "title");
  title.title = source.name;
  title.append(element("span", "name", (part.first ? "" : "… ") + stem(source)));
  title.append(element("span", "where", `${data.labels[source.label]} · ${source.split}`));
  const tiles = element("div", "tiles");
  tiles.style.setProperty("--tiles", part.images.length);
  tiles.append(...part.images.map((image) => tile(part.source, image)));
  box.append(title, tiles);
  item.append(box);
  return item;
}

// The strips, and the dialog with a pair.

function strips() {
  for (const strip of data.strips) {
    const ends = element("div", "ends");
    for (const [end, title] of [["least", "least like the source"], ["most", "most like the source"]]) {
      if (!strip[end].length) continue;
      const half = element("div");
      const row = element("div", "strip");
      for (const place of strip[end]) row.append(tile(...place, true));
      row.dataset.label = strip.label;
      row.dataset.end = end;
      row.querySelectorAll("img").forEach((image) => (image.loading = "lazy"));
      half.append(element("h3", "", `${strip.label}: ${title}`), row);
      ends.append(half);
    }
    at("strips").append(ends);
  }
}

let shown = { among: [], number: 0 };

function show(among, number) {
  shown = { among, number };
  const [source, image] = among[number];
  const { name, label, split, group, images } = data.sources[source];
  const [variant, url, parameters, ssim, aligned, invented, clipped] = images[image];
  const original = images.find((other) => other[0] === 0);
  const two = variant !== 0 && original !== undefined && original[1] !== null && url !== null;
  at("pair-title").textContent = `${name}: ${kindOf(variant)}`;
  at("which").textContent = kindOf(variant).replace("v", "V");
  put(at("after"), url, two ? `${kindOf(variant)} of ${name}` : `${kindOf(variant)}: ${name}`);
  put(at("before"), two ? original[1] : null, `original: ${name}`);
  at("slide").hidden = !two;
  at("compare").classList.toggle("two", two);
  at("facts").textContent = [
    `${data.labels[label]}, ${split}, ${data.groupName} ${group}`,
    likeness(ssim, 3),
    aligned === undefined || aligned === null ? "" : `SSIM apart from geometry ${aligned.toFixed(3)}`,
    share(invented, "invented"),
    share(clipped, "clipped"),
    url === null ? "not on disk" : "",
    parameters,
  ].filter(Boolean).join(". ");
  at("previous").disabled = number === 0;
  at("next").disabled = number === among.length - 1;
  cut();
  if (!at("pair").open) at("pair").showModal();
}

function put(image, url, alt) {
  image.hidden = url === null;
  image.alt = alt;
  if (url === null) image.removeAttribute("src");
  else image.src = data.base + url;
}

function cut() {
  at("compare").style.setProperty("--cut", `${at("cut").value}%`);
  at("cut").setAttribute("aria-valuetext", `${at("cut").value} % original`);
}

function open(event) {
  const button = event.target.closest(".tile");
  if (!button) return;
  const place = [Number(button.dataset.source), Number(button.dataset.image)];
  const strip = button.closest(".strip");
  const among = strip ? [...strip.children].map((other) => [Number(other.dataset.source), Number(other.dataset.image)]) : order;
  show(among, among.findIndex((other) => other[0] === place[0] && other[1] === place[1]));
}

// Arrow keys go from image to image; the neighbours of what has the focus are always drawn.
function walk(event) {
  const from = event.target.closest(".tile");
  if (!from || !event.key.startsWith("Arrow")) return;
  const all = [...list.querySelectorAll(".tile")];
  const box = from.getBoundingClientRect();
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const to = sideways
    ? all[all.indexOf(from) + sideways]
    : all
        .map((other) => [other, other.getBoundingClientRect()])
        .filter(([, at]) => Math.abs(at.top - box.top - down * height) < height / 2)
        .sort(([, one], [, two]) => Math.abs(one.left - box.left) - Math.abs(two.left - box.left))[0]?.[0];
  event.preventDefault();
  if (to) to.focus();
}

let waiting = false;
function drawSoon() {
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
}

function filter() {
  const top = at("gallery").getBoundingClientRect().top;
  arrange();
  if (top < 0) at("gallery").scrollIntoView();
  draw();
}

// Another width: the lines are other lines, but the same source stays in view.
function refit() {
  if (list.clientWidth === wide) return;
  const line = Math.floor(-list.getBoundingClientRect().top / height);
  const source = line > 0 ? parts[lines[Math.min(line, lines.length - 1)]]?.source : undefined;
  arrange();
  const part = source === undefined ? undefined : parts.find((other) => other.source >= source);
  if (part) scrollTo(0, scrollY + list.getBoundingClientRect().top + part.line * height);
}

at("compare").style.setProperty("--aspect", data.aspect);
document.body.style.setProperty("--aspect", data.aspect);
strips();
arrange();
for (const id of ["split", "label", "kind", "order", "name"]) at(id).addEventListener("input", filter);
at("filters").addEventListener("submit", (event) => event.preventDefault());
list.addEventListener("click", open);
list.addEventListener("keydown", walk);
at("strips")?.addEventListener("click", open);
at("cut").addEventListener("input", cut);
at("close").addEventListener("click", () => at("pair").close());
at("pair").addEventListener("close", drawSoon);
at("previous").addEventListener("click", () => show(shown.among, shown.number - 1));
at("next").addEventListener("click", () => show(shown.among, shown.number + 1));
addEventListener("scroll", drawSoon, { passive: true });
new ResizeObserver(() => { refit(); drawSoon(); }).observe(list);
requestAnimationFrame(() => performance.mark("usable"));

// The canvas: image, masks, candidates. The server sends numbers and a small label map of the masks; colours, opacity,
// zoom and before/after are drawn here, without a request.
const studios = new WeakMap();
const images = new Map(); // image id -> data URL, for when the page is rebuilt
const PATIENCE = 20000; // ms after which an unanswered event no longer blocks the next one

export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  const root = parentElement.querySelector(".studio");
  let studio = studios.get(root);
  if (!studio) { studio = makeStudio(root); studios.set(root, studio); }
  studio.emit = setTriggerValue;
  studio.update(data);
  return () => setTimeout(() => { if (!root.isConnected) studio.leave(); }); // it is also called between two updates
}

function makeStudio(root) {
  const $ = (selector) => root.querySelector(selector);
  const view = $("canvas.view"), frame = $(".frame"), pen = view.getContext("2d");
  const s = { data: null, image: null, imageId: null, map: null, mapText: "", overlay: null, frame: 0, zoom: 1, x: 0, y: 0, mode: "1",
    drag: null, hover: -1, wipe: null, compare: false, queue: [], sent: 0, sentAt: 0, pending: [], fingers: new Map(), pinch: null };
  const listening = new AbortController();
  const on = (target, kinds, act) => kinds.split(" ").forEach((kind) => target.addEventListener(kind, act, { signal: listening.signal, passive: false }));

  // ---- messages to the server: one event at a time, so that none is lost
  const waiting = () => s.sent > (s.data?.done ?? 0) && Date.now() - s.sentAt < PATIENCE;
  function send(event) {
    if (event.kind === "tune") s.queue = s.queue.filter((other) => other.kind !== "tune");
    s.queue.push(event);
    pump();
  }
  function pump() {
    if (s.queue.length && !waiting()) {
      s.sent = Math.max(s.sent, s.data.done) + 1;
      s.sentAt = Date.now();
      s.emit("event", { ...s.queue.shift(), n: s.sent });
      setTimeout(pump, PATIENCE + 50);
    }
    $(".busy").hidden = !waiting();
    root.dataset.waiting = waiting() ? "yes" : "no";
  }

  // ---- geometry: coordinates are pixels of the whole image at any zoom
  const size = () => s.data?.size ?? [1, 1];
  function fit() {
    const [w, h] = size();
    const room = frame.clientWidth || 600, tallest = Math.max(300, window.innerHeight * 0.68);
    const k = Math.min(room / w, tallest / h);
    return { css: [Math.max(1, w * k), Math.max(1, h * k)], k };
  }
  const scale = () => fit().k * s.zoom; // screen pixels per image pixel
  function place(e, clamp = true) {
    const r = view.getBoundingClientRect(), [w, h] = size(), k = (r.width / w) * s.zoom;
    const x = s.x + (e.clientX - r.left) / k, y = s.y + (e.clientY - r.top) / k;
    return clamp ? [Math.min(Math.max(x, 0), w - 0.01), Math.min(Math.max(y, 0), h - 0.01)] : [x, y];
  }
  function zoomTo(zoom, at) {
    const [w, h] = size(), centre = at ?? [s.x + w / s.zoom / 2, s.y + h / s.zoom / 2];
    const next = Math.min(32, Math.max(1, zoom)), share = s.zoom / next;
    s.x = centre[0] - (centre[0] - s.x) * share;
    s.y = centre[1] - (centre[1] - s.y) * share;
    s.zoom = next;
    hold();
  }
  function hold() {
    const [w, h] = size();
    s.x = Math.min(Math.max(s.x, 0), w - w / s.zoom);
    s.y = Math.min(Math.max(s.y, 0), h - h / s.zoom);
    $(".percent").textContent = `${Math.round(s.zoom * 100)}%`;
    view.classList.toggle("zoomed", s.zoom > 1);
    root.dataset.view = JSON.stringify([s.x, s.y, s.zoom]);
    soon();
  }

  // ---- drawing
  function hue(row) {
    if (!$(".each").checked) { const v = parseInt($(".colour").value.slice(1), 16); return [v >> 16, (v >> 8) & 255, v & 255]; }
    const h = ((0.92 + row * 0.618034) % 1) * 6, f = h - Math.floor(h), v = 255, p = v * 0.15, q = v * (1 - 0.85 * f), t = v * (1 - 0.85 * (1 - f));
    return [[v, t, p], [q, v, p], [p, v, t], [p, q, v], [t, p, v], [v, p, q]][Math.floor(h) % 6].map(Math.round);
  }
  function paintMap() {
    s.overlay = null;
    if (!s.map) return;
    const { width: w, height: h, labels } = s.map, drawn = s.data.drawn, opacity = Number($(".opacity").value);
    const taken = s.data.rows.some((row) => row.taken), spot = $(".spot").checked && drawn.length > 0;
    const [x1, y1, x2, y2] = spot ? [0, 0, w, h] : s.map.box;
    if (x1 >= x2) return;
    const colour = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
    const [fill, line, white] = [[], [], []]; // by label, as image pixels in memory
    drawn.forEach((row, i) => {
      const faint = s.hover >= 0 ? row !== s.hover : taken && !s.data.rows[row]?.taken, a = faint ? 110 : 255;
      fill[i + 1] = colour(...hue(row), Math.round(255 * opacity * (faint ? 0.3 : 1)));
      line[i + 1] = colour(...hue(row), a);
      white[i + 1] = colour(255, 255, 255, a);
    });
    const off = new OffscreenCanvas(x2 - x1, y2 - y1), g = off.getContext("2d"), bitmap = g.createImageData(off.width, off.height);
    const out = new Uint32Array(bitmap.data.buffer), shade = colour(0, 0, 0, 140);
    const edge = Math.max(1, Math.round(Math.max(w, h) / 640));
    const outside = (x, y, i, label, by) => x < by || y < by || x >= w - by || y >= h - by || labels[i - by] !== label
      || labels[i + by] !== label || labels[i - by * w] !== label || labels[i + by * w] !== label;
    for (let y = y1, o = 0; y < y2; y++) for (let x = x1, i = y * w + x1; x < x2; x++, i++, o++) {
      const label = labels[i];
      if (!label) { if (spot) out[o] = shade; continue; }
      out[o] = (outside(x, y, i, label, edge) ? white : outside(x, y, i, label, 2 * edge) ? line : fill)[label];
    }
    g.putImageData(bitmap, 0, 0);
    s.overlay = { canvas: off, box: [x1, y1, x2, y2] };
  }
  function soon() { s.frame ||= requestAnimationFrame(draw); } // messages to the server go first
  function draw() {
    cancelAnimationFrame(s.frame);
    s.frame = 0;
    if (!s.data) return;
    const { css } = fit(), ratio = window.devicePixelRatio || 1, [w, h] = size();
    const width = Math.round(css[0] * ratio), height = Math.round(css[1] * ratio);
    if (view.width !== width || view.height !== height) { view.width = width; view.height = height; }
    view.style.width = `${css[0]}px`; view.style.height = `${css[1]}px`;
    const k = (width / w) * s.zoom, ky = (height / h) * s.zoom;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.setTransform(k, 0, 0, ky, -s.x * k, -s.y * ky);
    pen.imageSmoothingEnabled = k < 4 * ratio;
    if (s.image) pen.drawImage(s.image, 0, 0, w, h);
    if (s.overlay && !(s.compare && s.wipe === null)) {
      pen.save();
      if (s.compare) { pen.beginPath(); pen.rect(s.wipe, 0, w - s.wipe, h); pen.clip(); }
      const [x1, y1, x2, y2] = s.overlay.box, across = w / s.map.width, down = h / s.map.height;
      pen.drawImage(s.overlay.canvas, x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down);
      pen.restore();
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    const at = (x, y) => [(x - s.x) * k, (y - s.y) * ky], line = 2 * ratio;
    const box = (b, dash, colour) => {
      const [x1, y1] = at(b[0], b[1]), [x2, y2] = at(b[2], b[3]);
      pen.lineWidth = line + 2 * ratio; pen.strokeStyle = "rgba(255,255,255,.85)"; pen.setLineDash([]); pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      pen.lineWidth = line; pen.strokeStyle = colour; pen.setLineDash(dash.map((d) => d * ratio)); pen.strokeRect(x1, y1, x2 - x1, y2 - y1); pen.setLineDash([]);
    };
    if (s.compare && s.wipe !== null) { const [x] = at(s.wipe, 0); pen.fillStyle = "#fff"; pen.fillRect(x - ratio, 0, 2 * ratio, height); }
    if (s.hover >= 0 && s.data.rows[s.hover]) box(s.data.rows[s.hover].box, [5, 4], `rgb(${hue(s.hover)})`);
    for (const b of [...s.data.boxes, ...s.pending.filter((p) => p.length === 4)]) box(b, [], "#0a6cff");
    if (s.drag?.boxing) box(s.drag.box, [6, 4], "#0a6cff");
    for (const p of [...s.data.points, ...s.pending.filter((p) => p.length === 3)]) {
      const [x, y] = at(p[0], p[1]), r = 7 * ratio;
      pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.fillStyle = p[2] ? "#12a150" : "#d92d20"; pen.fill(); pen.lineWidth = 2 * ratio; pen.strokeStyle = "#fff"; pen.stroke();
      pen.beginPath(); pen.moveTo(x - r / 2, y); pen.lineTo(x + r / 2, y); if (p[2]) { pen.moveTo(x, y - r / 2); pen.lineTo(x, y + r / 2); } pen.stroke();
    }
  }

  // ---- the list of candidates
  const figure = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  function cards() {
    const strip = $(".strip"), rows = s.data.rows;
    while (strip.children.length > rows.length) strip.lastChild.remove();
    while (strip.children.length < rows.length) strip.append(card(strip.children.length));
    rows.forEach((row, number) => {
      const item = strip.children[number], value = row.probability ?? row.quality ?? 0;
      const scores = [row.probability !== null && `similarity ${figure(row.similarity, 3)}`, `quality ${figure(row.quality, 2)}`].filter(Boolean).join(" · ");
      item.className = row.miss ? "card miss" : "card";
      item.setAttribute("aria-pressed", row.taken);
      item.setAttribute("aria-label", `${row.miss ? "nearest miss, " : ""}${row.text}, ${figure(value, 2)}, ${scores}`);
      item.style.setProperty("--colour", row.miss ? "gray" : `rgb(${hue(number)})`);
      item.querySelector(".name").textContent = `${figure(value, 2)}  ${row.text}`;
      item.querySelector(".figures").textContent = (row.miss ? "nearest miss · " : "") + scores;
      item.querySelector("i").style.width = `${Math.round(100 * Math.max(0, value))}%`;
      thumb(item.querySelector("canvas"), row.box);
    });
  }
  function card(number) {
    const item = document.createElement("button");
    item.type = "button";
    item.setAttribute("role", "listitem");
    item.innerHTML = '<canvas width="116" height="116" aria-hidden="true"></canvas><span><span class="name"></span><span class="bar"><i></i></span><span class="figures"></span></span>';
    item.onclick = () => send({ kind: "take", row: number });
    const highlight = (row) => () => { if (s.hover !== row) { s.hover = row; paintMap(); draw(); } };
    item.onpointerenter = item.onfocus = highlight(number);
    item.onpointerleave = item.onblur = highlight(-1);
    return item;
  }
  function thumb(canvas, [x1, y1, x2, y2]) {
    const wanted = `${s.imageId} ${x1} ${y1} ${x2} ${y2}`;
    if (canvas.drawn === wanted) return;
    canvas.drawn = wanted;
    const g = canvas.getContext("2d"), side = Math.max(x2 - x1, y2 - y1, 1) * 1.15, k = canvas.width / side, [w, h] = size();
    g.clearRect(0, 0, canvas.width, canvas.height);
    if (s.image) g.drawImage(s.image, canvas.width / 2 - ((x1 + x2) / 2) * k, canvas.height / 2 - ((y1 + y2) / 2) * k, w * k, h * k);
  }

  // ---- messages from the server
  async function update(data) {
    const first = !s.data, other = s.data?.image_id !== data.image_id;
    if (first) s.sent = Math.max(s.sent, data.done);
    s.data = data;
    if (!waiting()) s.pending = [];
    if (other) { s.zoom = 1; s.x = s.y = 0; s.hover = -1; }
    if (data.image) { images.clear(); images.set(data.image_id, data.image); }
    texts();
    pump();
    await readImage();
    if (s.data !== data) return;
    readMap();
    s.hover = Math.min(s.hover, data.rows.length - 1);
    paintMap();
    cards();
    hold();
    draw();
    root.dataset.done = data.done;
    root.dataset.places = JSON.stringify([data.points, data.boxes]);
    root.dataset.image = data.name;
    root.dataset.answer = data.answer;
  }
  async function readImage() {
    const wanted = s.data.image_id;
    if (s.imageId === wanted) return;
    const url = images.get(wanted);
    if (!url) { s.emit("need", wanted); return; }
    const image = await load(url);
    if (s.data.image_id === wanted) { s.image = image; s.imageId = wanted; }
  }
  function readMap() { // runs of equal labels, each within a row
    if (s.mapText === s.data.map) return;
    s.mapText = s.data.map;
    const [width, height, ...runs] = s.mapText.split(" "), w = Number(width), h = Number(height);
    const [names, lengths] = runs.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
    const labels = new Uint8Array(w * h);
    let [x1, y1, x2, y2, at] = [w, h, 0, 0, 0];
    new Uint16Array(lengths.buffer).forEach((length, run) => {
      if (names[run]) {
        const x = at % w, y = (at - x) / w;
        labels.fill(names[run], at, at + length);
        [x1, y1, x2, y2] = [Math.min(x1, x), Math.min(y1, y), Math.max(x2, x + length), y + 1];
      }
      at += length;
    });
    const box = [Math.max(x1 - 1, 0), Math.max(y1 - 1, 0), Math.min(x2 + 1, w), Math.min(y2 + 1, h)]; // its edge is soft
    s.map = { width: w, height: h, labels, box };
  }
  const load = (url) => new Promise((done) => { const image = new Image(); image.onload = image.onerror = () => done(image); image.src = url; });
  function texts() {
    const d = s.data;
    $(".headline").textContent = d.headline;
    $(".notes").replaceChildren(...d.notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    $(".error").textContent = d.error; $(".error").hidden = !d.error;
    $(".hint").textContent = d.hint;
    view.setAttribute("aria-label", `${d.name}: ${d.headline}. Click on an object to segment it.`);
    $("[data-do=undo]").disabled = !d.undo;
    $("[data-do=clear]").disabled = !d.points.length && !d.boxes.length && !d.everything && !d.rows.some((row) => row.taken);
    $("[data-do=everything]").setAttribute("aria-pressed", d.everything);
    $(".sliders").hidden = !d.sliders; $(".sliders").style.display = d.sliders ? "" : "none";
    if (!waiting() && !s.queue.some((event) => event.kind === "tune")) {
      $(".threshold").value = d.threshold; $(".top").value = d.top ?? 11;
    }
    figures();
    $(".auto").hidden = d.own;
  }
  function figures() {
    $(".threshold-value").textContent = Number($(".threshold").value).toFixed(2);
    $(".top-value").textContent = $(".top").value === "11" ? "all" : $(".top").value;
  }

  // ---- user input
  const modes = () => root.querySelectorAll("[data-mode]").forEach((button) => button.setAttribute("aria-checked", button.dataset.mode === s.mode));
  root.querySelectorAll("[data-mode]").forEach((button) => on(button, "click", () => { s.mode = button.dataset.mode; view.classList.toggle("boxing", s.mode === "box"); modes(); }));
  root.querySelectorAll("[data-do]").forEach((button) => on(button, "click", () => send({ kind: button.dataset.do })));
  root.querySelectorAll("[data-zoom]").forEach((button) => on(button, "click", () => zoomBy(button.dataset.zoom)));
  const zoomBy = (how) => zoomTo(how === "fit" ? 1 : s.zoom * (how === "in" ? 1.5 : 1 / 1.5));
  on($("[data-toggle=compare]"), "click", (e) => { s.compare = !s.compare; s.wipe = s.compare ? size()[0] / 2 : null; e.currentTarget.setAttribute("aria-pressed", s.compare); draw(); });
  on($(".opacity"), "input", () => { paintMap(); draw(); });
  on($(".each"), "change", () => { paintMap(); cards(); draw(); });
  on($(".colour"), "input", () => { $(".each").checked = false; paintMap(); cards(); draw(); });
  on($(".spot"), "change", () => { paintMap(); draw(); });
  const tune = () => { figures(); const top = Number($(".top").value); send({ kind: "tune", threshold: Number($(".threshold").value), top: top > 10 ? null : top }); };
  on($(".threshold"), "input", tune);
  on($(".top"), "input", tune);
  on($(".auto"), "click", () => send({ kind: "tune", threshold: null, top: s.data.top }));

  on(view, "contextmenu", (e) => e.preventDefault());
  on(view, "pointerdown", (e) => {
    s.fingers.set(e.pointerId, place(e, false));
    view.setPointerCapture(e.pointerId);
    if (s.fingers.size === 2) { s.drag = null; s.pinch = spread(); return; }
    const [x, y] = place(e);
    s.drag = { x, y, cx: e.clientX, cy: e.clientY, button: e.button, shift: e.shiftKey, pan: e.button === 1 || s.space, boxing: false, ox: s.x, oy: s.y };
    if (e.button === 1) e.preventDefault();
  });
  const spread = () => { const [a, b] = [...s.fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]) * s.zoom; };
  on(view, "pointermove", (e) => {
    if (s.compare && !s.drag) { s.wipe = place(e)[0]; soon(); return; }
    if (s.fingers.has(e.pointerId)) s.fingers.set(e.pointerId, place(e, false));
    if (s.pinch && s.fingers.size === 2) {
      const [a, b] = [...s.fingers.values()], now = spread();
      zoomTo(s.zoom * now / s.pinch, [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
      s.pinch = now;
      return;
    }
    const d = s.drag;
    if (!d) return;
    const dx = e.clientX - d.cx, dy = e.clientY - d.cy;
    if (d.pan || (e.pointerType === "touch" && s.mode !== "box")) {
      if (Math.hypot(dx, dy) > 6) d.pan = true;
      if (d.pan) { s.x = d.ox - dx / scale(); s.y = d.oy - dy / scale(); hold(); }
      return;
    }
    const [x, y] = place(e);
    d.boxing = Math.abs(dx) > 4 && Math.abs(dy) > 4;
    d.box = [Math.min(x, d.x), Math.min(y, d.y), Math.max(x, d.x), Math.max(y, d.y)];
    soon();
  });
  on(view, "pointerup pointercancel", (e) => {
    s.fingers.delete(e.pointerId);
    if (s.fingers.size < 2) s.pinch = null;
    const d = s.drag;
    s.drag = null;
    if (!d || d.pan || e.type === "pointercancel") return;
    if (d.boxing) { s.pending.push(d.box); send({ kind: "box", box: d.box }); }
    else {
      const label = d.button === 2 || d.shift || (e.button === 0 && s.mode === "0") ? 0 : 1;
      s.pending.push([d.x, d.y, label]);
      send({ kind: "point", x: d.x, y: d.y, label });
    }
    soon();
  });
  on(view, "wheel", (e) => { if (e.ctrlKey || e.metaKey || s.zoom > 1) { e.preventDefault(); zoomTo(s.zoom * Math.exp(-e.deltaY / 300), place(e)); } });
  on(root, "keydown", (e) => {
    const typing = e.target.matches("input") && e.target.type === "text";
    if (typing) return;
    if ((e.ctrlKey || e.metaKey) && e.key === "z") { e.preventDefault(); send({ kind: "undo" }); }
    else if (e.key === "Escape") send({ kind: "clear" });
    else if (e.key === "+" || e.key === "=") zoomBy("in");
    else if (e.key === "-") zoomBy("out");
    else if (e.key === "0") zoomBy("fit");
    else if (e.key === " " && e.target === view) { e.preventDefault(); s.space = true; }
  });
  on(root, "keyup", (e) => { if (e.key === " ") s.space = false; });

  // ---- pasted or dropped images
  function upload(files) {
    const file = [...files].find((one) => one.type.startsWith("image/"));
    if (!file) return false;
    if (file.size > s.data.upload) { $(".error").hidden = false; $(".error").textContent = `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${s.data.upload / 1e6} MB are allowed.`; return true; }
    const reader = new FileReader();
    reader.onload = () => send({ kind: "file", name: file.name || "pasted.png", content: reader.result.split(",")[1] ?? "" });
    reader.readAsDataURL(file);
    return true;
  }
  on(document, "paste", (e) => { if (upload(e.clipboardData?.files ?? [])) e.preventDefault(); });
  on(frame, "dragover", (e) => { e.preventDefault(); frame.classList.add("dropping"); });
  on(frame, "dragleave drop", () => frame.classList.remove("dropping"));
  on(frame, "drop", (e) => { e.preventDefault(); upload(e.dataTransfer?.files ?? []); });

  let width = 0;
  const watcher = new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } });
  watcher.observe(frame);
  modes();
  s.update = (data) => { update(data); };
  s.leave = () => { listening.abort(); watcher.disconnect(); studios.delete(root); };
  return s;
}

// The model in 3D.

const EDGES = [0, 1, 2, 3, 4, 1, null, 2, 0, 3, null, 0, 4, null];
// Radii between the eye and the middle: plotly's view is 45 degrees high.
const FAR = 2.1, HALF_VIEW = Math.tan(Math.PI / 8);
// Pixels: how far a camera may be from a click, and how far a click may move.
const REACH = 24, STILL = 6;
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [0, 1, 2].map((k) => a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3]);
const unitOf = (a) => a.map((v) => v / Math.hypot(...a));
const scene = byId("scene");
let pick = () => {};

// The lines of pyramids, each of a centre and four corners; a gap is not-a-number.
function outline(frusta, rows) {
  const axes = [[], [], []];
  for (const row of rows) {
    for (const corner of EDGES) {
      for (let k = 0; k < 3; k++) axes[k].push(corner === null ? NaN : frusta[15 * row + 3 * corner + k]);
    }
  }
  return { x: axes[0], y: axes[1], z: axes[2] };
}

function centres(frusta, count) {
  const axis = (k) => Array.from({ length: count }, (_, row) => frusta[15 * row + k]);
  return { x: axis(0), y: axis(1), z: axis(2) };
}

const every = (count) => Array.from({ length: count }, (_, i) => i);

// plotly reads a few tags in labels; a name has none.
const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function showModel() {
  const model = data.model;
  const floats = (text) => new Float32Array(bytes(text));
  const points = floats(model.points), frusta = floats(model.frusta), trueFrusta = floats(model.trueFrusta);
  const rgb = new Uint8Array(bytes(model.colours));
  const numPoints = points.length / 3, numCameras = model.cameras.length, numTrue = model.trueCameras.length;
  const coordinate = (k) => Float32Array.from({ length: numPoints }, (_, i) => points[3 * i + k]);
  const paints = () => [colour("--accent"), colour("--true"), colour("--ink")];
  const [accent, other, ink] = paints();
  const colours = Array.from({ length: numPoints }, (_, i) => `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`);
  const cloud = {
    type: "scatter3d", mode: "markers", hoverinfo: "skip",
    x: coordinate(0), y: coordinate(1), z: coordinate(2),
    marker: { size: 2, color: colours, line: { width: 0 }, opacity: 1 },
  };
  const lines = (shape, width, color) => ({ type: "scatter3d", mode: "lines", hoverinfo: "skip", ...shape, line: { width, color } });
  const spots = {
    type: "scatter3d", mode: "markers", hovertemplate: "%{text}<extra></extra>",
    text: model.cameras.map((row) => plain(data.images[row].n)),
    ...centres(frusta, numCameras), marker: { size: 5, opacity: 1, color: accent },
  };
  // Named places in this list are what the switches show and hide.
  const traces = [
    cloud, lines(outline(frusta, every(numCameras)), 2.5, accent), spots,
    lines(outline(trueFrusta, every(numTrue)), 2.5, other), lines({ x: [], y: [], z: [] }, 6, ink),
  ];
  const shows = { points: [0], cameras: [1, 2], truth: [3] };
  const PICKED = 4;

  // The box of everything shown: plotly clips to it.
  const axis = (k) => {
    let low = Infinity, high = -Infinity;
    for (const array of [points, frusta, trueFrusta]) {
      for (let i = k; i < array.length; i += 3) { low = Math.min(low, array[i]); high = Math.max(high, array[i]); }
    }
    const margin = 0.02 * (high - low) + 1e-6;
    return { visible: false, range: [low - margin, high + margin], autorange: false };
  };
  const spans = [axis(0), axis(1), axis(2)];
  const sizes = spans.map((a) => a.range[1] - a.range[0]);
  // plotly's unit: volumes have a geometric mean of one, and the origin in the middle of the box.
  const unit = 1 / Math.cbrt(sizes[0] * sizes[1] * sizes[2]);
  const middle = spans.map((a) => -unit * (a.range[0] + a.range[1]) / 2);
  const place = (vector) => ({ x: vector[0], y: vector[1], z: vector[2] });
  const narrow = Math.max(1, scene.clientHeight / scene.clientWidth);
  const distance = unit * model.radius * narrow * FAR;
  const home = { eye: place(middle.map((m, k) => m + distance * model.eye[k])), center: place(middle), up: place([0, 0, 1]) };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)", uirevision: "model",
    scene: { xaxis: spans[0], yaxis: spans[1], zaxis: spans[2], aspectmode: "data", dragmode: "turntable", camera: home },
  };
  const config = { displayModeBar: false, responsive: true, displaylogo: false, scrollZoom: true };

  const repaint = () => {
    const now = paints();
    Plotly.restyle(scene, { "line.color": now }, [1, 3, PICKED]);
    Plotly.restyle(scene, { "marker.color": now[0] }, [2]);
  };
  pick = (row) => {
    const at = model.cameras.indexOf(row);
    Plotly.restyle(scene, Object.fromEntries(
      Object.entries(outline(frusta, at < 0 ? [] : [at])).map(([k, v]) => [k, [v]])), [PICKED]);
    showPicked(row);
  };

  // Which camera is under a point of the window; plotly's own clicks miss short ones and taps.
  const nearestCamera = (left, top) => {
    const box = scene.getBoundingClientRect(), camera = scene.layout.scene.camera;
    const [eye, center, up] = ["eye", "center", "up"].map((k) => [camera[k].x, camera[k].y, camera[k].z]);
    const forward = unitOf(center.map((c, k) => c - eye[k]));
    const right = unitOf(cross(forward, up)), above = cross(right, forward);
    let best = null, least = REACH;
    for (let i = 0; i < numCameras; i++) {
      const from = [0, 1, 2].map((k) => unit * frusta[15 * i + k] + middle[k] - eye[k]);
      const scale = box.height / 2 / (dot(from, forward) * HALF_VIEW);
      const away = Math.hypot(
        box.left + box.width / 2 + scale * dot(from, right) - left,
        box.top + box.height / 2 - scale * dot(from, above) - top);
      if (scale > 0 && away < least) [best, least] = [model.cameras[i], away];
    }
    return best;
  };

  const turn = (across, up, zoom) => {
    const { eye, center } = scene.layout.scene.camera;
    const [x, y, z] = [eye.x - center.x, eye.y - center.y, eye.z - center.z];
    const flat = Math.hypot(x, y), far = Math.hypot(flat, z) * zoom;
    const around = Math.atan2(y, x) + across;
    const height = Math.max(-1.5, Math.min(1.5, Math.atan2(z, flat) + up));
    Plotly.relayout(scene, { "scene.camera.eye": place([
      center.x + far * Math.cos(height) * Math.cos(around),
      center.y + far * Math.cos(height) * Math.sin(around),
      center.z + far * Math.sin(height),
    ]) });
  };
  const keys = {
    ArrowLeft: () => turn(-0.12, 0, 1), ArrowRight: () => turn(0.12, 0, 1),
    ArrowUp: () => turn(0, 0.12, 1), ArrowDown: () => turn(0, -0.12, 1),
    "+": () => turn(0, 0, 1 / 1.15), "=": () => turn(0, 0, 1 / 1.15), "-": () => turn(0, 0, 1.15),
    0: () => Plotly.relayout(scene, { "scene.camera": home }),
  };
  Plotly.newPlot(scene, traces, layout, config).then(() => {
    dark.addEventListener("change", repaint);
    let pressed = [];
    scene.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
    addEventListener("pointerup", (event) => {
      const row = nearestCamera(event.clientX, event.clientY);
      const moved = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]);
      if (scene.contains(event.target) && moved < STILL && row !== null) pick(row);
    }, true);
    scene.addEventListener("keydown", (event) => {
      if (keys[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); keys[event.key](); }
    });
    byId("reset").addEventListener("click", keys[0]);
    byId("point-size").addEventListener("input", (event) => {
      Plotly.restyle(scene, { "marker.size": Number(event.target.value) }, [0]);
    });
    for (const box of document.querySelectorAll("[data-show]")) {
      box.addEventListener("change", () => Plotly.restyle(scene, { visible: box.checked }, shows[box.dataset.show]));
    }
    scene.dataset.ready = "yes";
  });
}

// plotly, which the page holds compressed.
async function loadLibrary() {
  const packed = new Blob([bytes(byId("library").textContent)]);
  const unpacked = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(make("script", { textContent: await new Response(unpacked).text() }));
}

// The picture beside the model.
function showPicked(row) {
  const source = pictureOf(row), { n: name } = data.images[row];
  const inside = source
    ? make("button", { type: "button", className: "large", title: "larger, with keypoints" }, make("img", { src: source, alt: name }))
    : make("p", { className: "quiet", textContent: "there is no picture of it" });
  if (source) inside.dataset.open = row;
  byId("picked").replaceChildren(inside, make("p", { className: "quiet", textContent: name }));
  for (const button of document.querySelectorAll("[data-pick]")) {
    const isPicked = button.dataset.pick === name;
    button.toggleAttribute("aria-current", isPicked);
    if (isPicked) {
      button.setAttribute("aria-current", "true");
      const list = byId("cameras");
      list.scrollTop += button.getBoundingClientRect().top - list.getBoundingClientRect().top - list.clientHeight / 2;
    }
  }
}

if (scene) {
  const rowOf = new Map(data.images.map((image, row) => [image.n, row]));
  pick = showPicked;
  byId("cameras").addEventListener("click", (event) => {
    const button = event.target.closest("[data-pick]");
    if (button) pick(rowOf.get(button.dataset.pick));
  });
  byId("filter")?.addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const item of byId("cameras").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  });
  const canvas = document.createElement("canvas");
  if (window.DecompressionStream && (canvas.getContext("webgl2") || canvas.getContext("webgl"))) {
    loadLibrary().then(showModel);
  } else {
    scene.hidden = true;
    byId("no-scene").hidden = false;
  }
}

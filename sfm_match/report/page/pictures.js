"use strict";
// The data of the page, the pictures where they come into view, and the viewer of one picture.
// Names of images only ever become text, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const onChange = (id, run) => byId(id)?.addEventListener("change", run);
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function bytes(base64) {
  const text = atob(base64);
  const array = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) array[i] = text.charCodeAt(i);
  return array.buffer;
}

const jpeg = (base64) => "data:image/jpeg;base64," + base64;

function pictureOf(row) {
  const image = data.images[row];
  return image.p < 0 ? null : jpeg(data.pictures[image.p]);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Calls run(element) once for each element, when it comes near the view.
function whenSeen(elements, run) {
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        observer.unobserve(entry.target);
        run(entry.target);
      }
    }
  }, { rootMargin: "300px" });
  for (const element of elements) observer.observe(element);
}

whenSeen(document.querySelectorAll("[data-picture]"), (place) => {
  const source = pictureOf(Number(place.dataset.picture));
  if (source) place.append(make("img", { src: source, alt: "", decoding: "async" }));
});

// The viewer: a picture as large as it is, with its keypoints.

const viewer = byId("viewer");
const viewerPicture = byId("viewer-picture");
const keypoints = new Uint16Array(bytes(data.keypoints));
const firstKeypoint = [];
data.images.reduce((sum, image, row) => { firstKeypoint[row] = sum; return sum + image.k; }, 0);
const NO_POINT = 65535, STEPS_PER_PIXEL = 1000, LARGEST_ERROR = 2;
const STOPS = [[46, 230, 197], [247, 240, 109], [255, 162, 58], [242, 48, 90]];
let viewed = 0;

function errorColour(error) {
  const place = Math.min(error / LARGEST_ERROR, 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  const parts = STOPS[low].map((v, i) => Math.round(v + (place - low) * (STOPS[low + 1][i] - v)));
  return `rgb(${parts.join(",")})`;
}

function drawKeypoints() {
  const canvas = byId("keypoints");
  const image = data.images[viewed];
  const box = viewerPicture.getBoundingClientRect(), outer = canvas.parentElement.getBoundingClientRect();
  if (!box.width || !image.w) { canvas.width = 0; return; }
  // The picture is fitted into its box; the canvas lies on the picture alone.
  const scale = Math.min(box.width / image.w, box.height / image.h);
  const width = image.w * scale, height = image.h * scale, ratio = devicePixelRatio || 1;
  canvas.style.left = `${box.left - outer.left + (box.width - width) / 2}px`;
  canvas.style.top = `${box.top - outer.top + (box.height - height) / 2}px`;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  if (!byId("show-keypoints").checked) return;
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  for (let i = firstKeypoint[viewed]; i < firstKeypoint[viewed] + image.k; i++) {
    const [x, y, error] = keypoints.subarray(3 * i, 3 * i + 3);
    draw.beginPath();
    draw.arc(x / 65535 * width, y / 65535 * height, error === NO_POINT ? 2 : 2.6, 0, 2 * Math.PI);
    if (error === NO_POINT) {
      draw.strokeStyle = "#8fa3b8cc";
      draw.stroke();
    } else {
      draw.fillStyle = errorColour(error / STEPS_PER_PIXEL);
      draw.fill();
    }
  }
}

function view(row) {
  viewed = (row + data.images.length) % data.images.length;
  const image = data.images[viewed];
  byId("viewer-name").textContent = image.n;
  viewerPicture.hidden = image.p < 0;
  viewerPicture.alt = image.n;
  viewerPicture.src = pictureOf(viewed) ?? "data:,";
  byId("viewer-facts").textContent = image.p < 0 ? "there is no picture of it" : `${image.k} keypoints, an even part`;
  if (!viewer.open) viewer.showModal();
  drawKeypoints();
}

viewerPicture.addEventListener("load", drawKeypoints);
addEventListener("resize", () => { if (viewer.open) drawKeypoints(); });
onChange("show-keypoints", drawKeypoints);
byId("close").addEventListener("click", () => viewer.close());
byId("previous").addEventListener("click", () => view(viewed - 1));
byId("next").addEventListener("click", () => view(viewed + 1));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target.type !== "checkbox") { event.preventDefault(); view(viewed + step); }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-open]");
  if (button) view(Number(button.dataset.open));
});

"use strict";

// The camera's frames are sent one at a time, the next when the last is answered: the rate shown is
// what camera, network and page reach together.

const MOST = 40; // frames of one hold
const EVERY = 150; // ms between two of them
const SIDE = 256; // pixels of a frame's shorter side, enough for any network here

const $ = (id) => document.getElementById(id);
let classes = [];
let state = null; // of the classifier, as it is shown
let held = null;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function ask(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is `fewshot serve` still running?");
  }
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

async function tell(action) {
  try {
    await action();
    $("error").hidden = true;
  } catch (error) {
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

// ------------------------------------------------------------------------------ the answer

function picture(sha256, text) {
  return element("figure", {}, element("img", { src: `/api/support/${sha256}.png`, alt: "" }), text);
}

function words(found) {
  return found.label === null ? "unknown" : found.label;
}

function doubt(found) {
  const sure = found.confidence === null ? "" : `${Math.round(100 * found.confidence)} % sure, `;
  const most = found.label === null ? `most like ${found.best}, ` : "";
  return `${most}${sure}distance ${found.distance.toFixed(3)}`;
}

function show(found) {
  if (found.state !== state) tell(look); // another program has changed the classifier
  if ($("answer").textContent !== words(found)) $("answer").textContent = words(found);
  $("answer").classList.toggle("unknown", found.label === null);
  $("doubt").textContent = doubt(found);
  $("nearest").replaceChildren(...found.nearest.map((each) => picture(each.sha256, each.label)));
}

// ------------------------------------------------------------------------------ the camera

function frame() {
  const video = $("camera");
  const scale = SIDE / Math.min(video.videoWidth, video.videoHeight);
  const canvas = element("canvas", {
    width: Math.round(video.videoWidth * scale),
    height: Math.round(video.videoHeight * scale),
  });
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function start() {
  if (!navigator.mediaDevices) throw new Error("this browser gives no camera to this page");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(`no camera: ${error.message}`);
  }
  $("camera").srcObject = stream;
  await $("camera").play();
  $("start").disabled = true;
  $("hold").disabled = false;
  live();
}

async function live() {
  let rate = 0;
  for (;;) {
    if (classes.length === 0 || held !== null) {
      await pause(100);
      continue;
    }
    const began = performance.now();
    await tell(async () => show(await ask("/api/predict", { method: "POST", body: await frame() })));
    if (!$("error").hidden) await pause(1000);
    const now = 1000 / (performance.now() - began);
    rate = rate ? 0.9 * rate + 0.1 * now : now;
    $("speed").textContent = `${rate.toFixed(0)} frames/s`;
  }
}

// ------------------------------------------------------------------------------ the classes

function draw(overview) {
  classes = overview.classes;
  state = overview.state;
  $("names").replaceChildren(...classes.map(({ name }) => element("option", { value: name })));
  $("classes").replaceChildren(...classes.map(({ name, images }) =>
    element("div", { className: "class" },
      element("h3", {}, `${name} (${images.length})`,
        element("button", {
          type: "button", textContent: "remove", ariaLabel: `remove ${name}`,
          onclick: () => confirm(`Remove ${name} and its images?`) && remove({ name }),
        })),
      ...images.map((each, i) => {
        const made = picture(each.sha256, "");
        made.append(element("button", {
          type: "button", textContent: "✕", ariaLabel: `remove image ${i + 1} of ${name}`,
          onclick: () => remove({ name, sha256: each.sha256 }),
        }));
        return made;
      }))));
  if (classes.length === 0) $("answer").textContent = "Enrol a class to begin.";
}

const look = async () => draw(await ask("/api/classes"));

const remove = (what) => tell(async () => {
  const asking = ask("/api/remove", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...what, state }),
  });
  draw(await asking.catch(async (error) => {
    await look();
    throw error;
  }));
  $("status").textContent = "Removed and saved.";
});

const enrol = (images) => tell(async () => {
  const form = new FormData();
  form.append("name", $("name").value);
  images.forEach((image) => form.append("image", image, image.name || "camera"));
  draw(await ask("/api/enrol", { method: "POST", body: form }));
  $("status").textContent = `${images.length} images of ${$("name").value} enrolled and saved.`;
});

async function hold() {
  if (held !== null || $("hold").disabled || !$("form").reportValidity()) return;
  const frames = [];
  held = frames;
  $("hold").classList.add("held");
  while (held === frames && frames.length < MOST) {
    frames.push(frame());
    $("status").textContent = `${frames.length} images …`;
    await pause(EVERY);
  }
}

async function release() {
  if (held === null) return;
  const frames = held;
  held = null;
  $("hold").classList.remove("held");
  await enrol(await Promise.all(frames));
}

// ------------------------------------------------------------------------------ the wires

async function classify(images) {
  for (const image of images) {
    await tell(async () => {
      const found = await ask("/api/predict", { method: "POST", body: image });
      const url = URL.createObjectURL(image);
      $("results").prepend(element("li", {}, element("img", {
        src: url, alt: "", onload: () => URL.revokeObjectURL(url),
      }), ` ${image.name}: `, element("strong", {}, words(found)), ` (${doubt(found)})`));
    });
  }
}

$("start").onclick = () => tell(start);
$("hold").onpointerdown = hold;
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, release);
$("hold").onkeydown = (event) => [" ", "Enter"].includes(event.key) && !event.repeat && hold();
$("hold").onkeyup = release;
$("form").onsubmit = (event) => event.preventDefault();
$("pictures").onchange = (event) => classify([...event.target.files]);
$("examples").onchange = (event) => {
  if ($("form").reportValidity() && event.target.files.length) enrol([...event.target.files]);
  event.target.value = "";
};
$("drop").ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
};
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  classify([...event.dataTransfer.files]);
};
tell(look);

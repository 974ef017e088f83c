"use strict";

// The camera's frames are sent one at a time, the next when the last is answered: the rate shown is
// what camera, network and page reach together.

const MOST = 40; // frames of one hold
const EVERY = 150; // ms between two of them
const AT_ONCE = 8; // pictures of one request
const SIDE = 256; // pixels of a frame's shorter side, enough for any network here

const $ = (id) => document.getElementById(id);
let classes = [];
let state = null; // of the classifier, as it is shown
let held = null;
let stream = null;

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
  const distance = `distance ${found.distance.toFixed(3)}`;
  if (found.label === null) return `nearest ${found.best}, ${distance}`;
  if (found.confidence === null) return distance;
  return `${Math.round(100 * found.confidence)} % sure, ${distance}`;
}

function show(found) {
  if (found.state !== state) tell(look); // another program has changed the classifier
  if ($("answer").textContent !== words(found)) $("answer").textContent = words(found);
  $("answer").classList.toggle("unknown", found.label === null);
  $("doubt").textContent = doubt(found);
  $("nearest").replaceChildren(...found.nearest.map((each) => picture(each.sha256, each.label)));
}

function forget() {
  for (const name of ["answer", "doubt", "speed"]) $(name).textContent = "";
  $("nearest").replaceChildren();
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

function wire(on) {
  $("start").textContent = on ? "Stop the camera" : "Start the camera";
  $("hold").disabled = !on;
  $("off").hidden = on;
  $("view").classList.toggle("idle", !on);
}

async function start() {
  if (!navigator.mediaDevices) throw new Error("this browser gives no camera to this page");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(`no camera: ${error.message}`);
  }
  $("camera").srcObject = stream;
  await $("camera").play();
  wire(true);
  live(stream);
}

function stop() {
  release();
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").srcObject = null;
  wire(false);
  forget();
}

async function live(mine) {
  let mean = 0;
  while (stream === mine) {
    if (classes.length === 0 || held !== null) {
      await pause(100);
      continue;
    }
    const began = performance.now();
    await tell(async () => {
      const found = await ask("/api/predict", { method: "POST", body: await frame() });
      if (stream === mine && held === null && classes.length > 0) show(found);
    });
    if (!$("error").hidden) await pause(1000);
    const took = performance.now() - began;
    mean = mean ? 0.9 * mean + 0.1 * took : took;
    if (stream === mine) {
      $("speed").textContent = `${mean.toFixed(0)} ms, ${(1000 / mean).toFixed(0)} frames/s`;
    }
  }
}

// ------------------------------------------------------------------------------ the classes

function draw(overview) {
  classes = overview.classes;
  state = overview.state;
  const { file, model, shape } = overview;
  document.title = `${file} – fewshot`;
  $("file").textContent = file;
  $("model").textContent = `${model}, pictures of ${shape[1]} × ${shape[0]}`;
  $("download").download = file;
  $("total").textContent = classes.length ? `${classes.length}` : "";
  $("empty").hidden = classes.length > 1;
  $("names").replaceChildren(...classes.map(({ name }) => element("option", { value: name })));
  $("classes").replaceChildren(...classes.map(({ name, images }) =>
    element("div", { className: "class" },
      element("h3", {}, element("span", {}, `${name} `, element("small", {}, `${images.length}`)),
        element("button", {
          type: "button", className: "plain", textContent: "Remove", ariaLabel: `remove ${name}`,
          onclick: () => remove({ name }, name),
        })),
      ...images.map((each, i) => {
        const made = picture(each.sha256, "");
        made.append(element("button", {
          type: "button", textContent: "✕", ariaLabel: `remove image ${i + 1} of ${name}`,
          onclick: () => remove({ name, sha256: each.sha256 }, `A picture of ${name}`),
        }));
        return made;
      }))));
  if (classes.length === 0) {
    forget();
    $("classes").textContent = "None yet.";
  }
}

const look = async () => draw(await ask("/api/classes"));

function say(text, undo = false) {
  $("status").textContent = text;
  $("undo").hidden = !undo;
}

const post = (path, value) => ask(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value),
});

const remove = (what, words) => tell(async () => {
  draw(await post("/api/remove", { ...what, state }).catch(async (error) => {
    await look();
    throw error;
  }));
  say(`${words} was removed, and that is saved.`, true);
  $("undo").focus();
});

const undo = () => tell(async () => {
  draw(await post("/api/undo", {}));
  say("It is back, and that is saved.");
  $("known").focus(); // the button is gone
});

function named() {
  const name = $("name").value.trim();
  $("name-help").hidden = name !== "";
  $("name").ariaInvalid = name === "";
  if (name === "") $("name").focus();
  return name;
}

const enrol = (images, name) => tell(async () => {
  $("progress").hidden = false;
  $("classes").inert = true; // what is removed now would come back with the pictures still to come
  let done = 0;
  try {
    for (let i = 0; i < images.length; i += AT_ONCE) {
      say(`${done} of ${images.length} pictures of ${name} …`);
      $("progress").value = done / images.length;
      const form = new FormData();
      form.append("name", name);
      const some = images.slice(i, i + AT_ONCE);
      some.forEach((image) => form.append("image", image, image.name || "camera"));
      draw(await ask("/api/enrol", { method: "POST", body: form }));
      done += some.length;
    }
  } finally {
    $("progress").hidden = true;
    $("classes").inert = false;
    const pictures = done === 1 ? "picture" : "pictures";
    say(`${done} ${pictures} of ${name} enrolled and saved.`);
  }
});

async function hold() {
  if (held !== null || $("hold").disabled || named() === "") return;
  const frames = [];
  held = frames;
  $("answer").textContent = $("doubt").textContent = ""; // of a frame before these
  $("hold").classList.add("held");
  $("taken").hidden = $("progress").hidden = false;
  while (held === frames && frames.length < MOST) {
    frames.push(frame());
    $("taken").textContent = `● ${frames.length}`;
    $("progress").value = frames.length / MOST;
    say(`${frames.length} of at most ${MOST} pictures …`);
    await pause(EVERY);
  }
}

async function release() {
  if (held === null) return;
  const frames = held;
  held = null;
  $("hold").classList.remove("held");
  $("taken").hidden = true;
  await enrol(await Promise.all(frames), $("name").value.trim());
}

// ------------------------------------------------------------------------------ the wires

function result(image, state, what, more) {
  const url = URL.createObjectURL(image);
  $("results").prepend(element("li", { className: state },
    element("img", { src: url, alt: "", onload: () => URL.revokeObjectURL(url),
      onerror: (event) => event.target.remove() }),
    element("div", {}, element("strong", {}, what), element("br"), element("small", {}, more))));
}

async function classify(images) {
  for (const image of images) {
    const began = performance.now();
    try {
      const found = await ask("/api/predict", { method: "POST", body: image });
      const took = `${(performance.now() - began).toFixed(0)} ms`;
      const state = found.label === null ? "unknown" : "";
      result(image, state, words(found), `${doubt(found)}, ${took}. ${image.name}`);
    } catch (error) {
      result(image, "unknown", "no answer", `${error.message}. ${image.name}`);
    }
  }
}

function examples(images) {
  const name = named();
  if (name !== "" && images.length) enrol(images, name);
}

function zone(id, take) {
  const drop = $(id);
  const over = (on) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", on);
  };
  drop.ondragover = over(true);
  drop.ondragleave = over(false);
  drop.ondrop = (event) => {
    over(false)(event);
    take([...event.dataTransfer.files]);
  };
  drop.querySelector("input").onchange = (event) => {
    take([...event.target.files]);
    event.target.value = "";
  };
}

$("start").onclick = () => tell(stream === null ? start : stop);
$("hold").onpointerdown = hold;
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, release);
$("hold").onkeydown = (event) => {
  if (![" ", "Enter"].includes(event.key)) return;
  event.preventDefault();
  if (!event.repeat) hold();
};
$("hold").onkeyup = release;
$("hold").oncontextmenu = (event) => event.preventDefault(); // of a long touch
$("form").onsubmit = (event) => { // Enter, from the name on to what it is the name of
  event.preventDefault();
  if (named() !== "") $($("hold").disabled ? "examples" : "hold").focus();
};
$("name").oninput = () => {
  $("name-help").hidden = true;
  $("name").ariaInvalid = "false";
};
$("undo").onclick = undo;
// A picture that misses its place would replace the page.
for (const event of ["dragover", "drop"]) addEventListener(event, (e) => e.preventDefault());
zone("drop", classify);
zone("drop-examples", examples);
tell(look);

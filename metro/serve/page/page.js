// A photo goes to /predict; overlay, meshes and files come back in one answer.
const COLOUR = [0.36, 0.58, 0.88, 1], SIDE = 1600, LEAST_BOX = 8;
const ENCODED = ["overlay_png", "glb", "obj"];  // of the answer: files of their own, not parts of the JSON
const el = id => document.getElementById(id);
const table = turntable(el("canvas"));
let photo = null, size = null, addresses = [], asked = 0;

function say(text, wrong = false) { el("status").textContent = text; el("status").classList.toggle("wrong", wrong); }

function bytes(text) { return Uint8Array.from(atob(text), c => c.charCodeAt(0)); }

// The meshes of a GLB of ours: a JSON chunk, then one of plain arrays.
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(12, true);
  const content = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
  const array = (accessor, Kind) => {
    const { byteOffset, byteLength } = content.bufferViews[content.accessors[accessor].bufferView];
    return new Kind(buffer, 28 + length + byteOffset, byteLength / 4);
  };
  return content.meshes.map(({ primitives: [{ attributes, indices }] }) => ({
    positions: array(attributes.POSITION, Float32Array),
    normals: array(attributes.NORMAL, Float32Array),
    faces: array(indices, Uint32Array),
    colour: COLOUR,
  }));
}

async function predict(file, box) {
  const mine = ++asked, form = new FormData();
  form.append("image", file, file.name || "photo");
  if (box) form.append("boxes", JSON.stringify([box]));
  say("Predicting …");
  let response, answer;
  try {
    response = await fetch(`predict?overlay=true&overlay_side=${SIDE}&glb=true&obj=true`, { method: "POST", body: form });
    answer = await response.json();
  } catch {
    answer = { detail: "The server does not answer; does it still run?" };
  }
  if (mine !== asked) return;  // another photo was chosen meanwhile
  if (!response || !response.ok) return say(answer.detail, true);
  photo = file;
  show(answer.images[0], file.name || "photo");
}

function show(image, name) {
  size = image.image_size;
  el("result").hidden = false;
  el("box").hidden = true;
  addresses.forEach(address => URL.revokeObjectURL(address));
  addresses = [];
  const stem = name.replace(/\.\w+$/, ""), links = [];
  const file = (label, end, kind, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: kind }));
    link.download = stem + end;
    link.textContent = label;
    addresses.push(link.href);
    links.push(link);
    return link.href;
  };
  const plain = JSON.stringify(image, (key, value) => ENCODED.includes(key) ? undefined : value, 1);
  el("overlay").src = file("Overlay PNG", "_overlay.png", "image/png", bytes(image.overlay_png));
  if (image.glb) file("GLB", ".glb", "model/gltf-binary", bytes(image.glb));
  image.people.forEach((person, k) => {
    const several = image.people.length > 1;
    file(several ? `OBJ ${k + 1}` : "OBJ", several ? `_${k}.obj` : ".obj", "model/obj", person.obj);
  });
  file("JSON", ".json", "application/json", plain);
  el("files").replaceChildren(...links);
  if (table) table.show(image.glb ? unpack(bytes(image.glb).buffer) : []);
  const count = image.people.length, boxes = [...new Set(image.people.map(person => person.box))];
  say(count ? `${count} ${count > 1 ? "people" : "person"} in ${name}. Box: ${boxes.join("; ")}.` : image.note, !count);
}

function take(files) {
  const file = [...files].find(one => one.type.startsWith("image/")) || files[0];
  if (file) predict(file);
}

el("file").addEventListener("change", () => { take(el("file").files); el("file").value = ""; });
document.addEventListener("paste", e => take(e.clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, e => { e.preventDefault(); el("drop").classList.toggle("over", name === "dragover"); });
}
document.addEventListener("drop", e => take(e.dataTransfer.files));
for (const button of document.querySelectorAll(".examples button")) {
  button.addEventListener("click", async () => {
    const address = button.querySelector("img").src;
    const content = await (await fetch(address)).blob();
    predict(new File([content], `example-${address.split("/").pop()}`, { type: content.type }));
  });
}

// A box drawn on the picture, in its pixels.
let corner = null;
function place(e) {
  const frame = el("overlay").getBoundingClientRect();
  const within = (x, side) => Math.max(0, Math.min(side, x));
  return [within(e.clientX - frame.left, frame.width), within(e.clientY - frame.top, frame.height), size[0] / frame.width];
}
function drawn(e) {
  const [x, y, scale] = place(e);
  const box = [Math.min(x, corner[0]), Math.min(y, corner[1]), Math.abs(x - corner[0]), Math.abs(y - corner[1])];
  ["left", "top", "width", "height"].forEach((side, k) => { el("box").style[side] = `${box[k]}px`; });
  return box.map(length => length * scale);
}
el("picture").addEventListener("pointerdown", e => {
  corner = place(e);
  el("picture").setPointerCapture(e.pointerId);
  drawn(e);
  el("box").hidden = false;
});
el("picture").addEventListener("pointermove", e => { if (corner) drawn(e); });
el("picture").addEventListener("pointerup", e => {
  if (!corner) return;
  const box = drawn(e);
  corner = null;
  if (Math.min(box[2], box[3]) < LEAST_BOX) el("box").hidden = true;
  else predict(photo, box.map(x => Math.round(x * 10) / 10));
});
el("picture").addEventListener("pointercancel", () => { corner = null; el("box").hidden = true; });

if (!table) el("turn").textContent = "This browser offers no WebGL, so the meshes cannot be turned here.";

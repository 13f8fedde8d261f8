// The report's meshes on a turntable: a button for each case, a box for each of its two meshes.
const COLOURS = { predicted: [0.36, 0.58, 0.88, 1], true: [0.95, 0.70, 0.40, 1] };

function bytes(text) { return Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer; }

function unpack(mesh, faces) {
  const raw = new Int16Array(bytes(mesh.data)), p = new Float32Array(raw.length), n = new Float32Array(raw.length);
  // Camera axes have y down and z forward; the screen has y up and z towards the viewer.
  for (let i = 0; i < raw.length; i++) p[i] = raw[i] * mesh.scale * (i % 3 === 0 ? 1 : -1);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const u = [0, 1, 2].map(k => p[b + k] - p[a + k]), v = [0, 1, 2].map(k => p[c + k] - p[a + k]);
    const w = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const at of [a, b, c]) for (let k = 0; k < 3; k++) n[at + k] += w[k];
  }
  return { positions: p, normals: n, faces };
}

function viewer(root, data) {
  const table = turntable(root.querySelector("canvas"));
  if (!table) {
    root.querySelector(".status").textContent = "This browser offers no WebGL, so the meshes cannot be turned here.";
    return;
  }
  const faces = new Uint32Array(bytes(data.faces));
  const boxes = [...root.querySelectorAll("input")], picture = root.querySelector("img");
  let meshes = {};

  function choose(index) {
    const chosen = data.cases[index];
    meshes = {};
    for (const { value: kind } of boxes.filter(box => chosen[box.value])) {
      meshes[kind] = { ...unpack(chosen[kind], faces), colour: COLOURS[kind] };
    }
    picture.src = chosen.image;
    picture.alt = `The network's input: ${chosen.label}`;
    root.querySelectorAll("button").forEach((b, i) => b.setAttribute("aria-pressed", i === index));
    boxes.forEach(box => { box.disabled = !chosen[box.value]; });
    hide();
    table.show(Object.values(meshes));
  }

  function hide() {
    for (const box of boxes) if (meshes[box.value]) meshes[box.value].hidden = !box.checked;
  }

  root.querySelectorAll("button").forEach((b, i) => b.addEventListener("click", () => choose(i)));
  boxes.forEach(box => box.addEventListener("change", () => { hide(); table.draw(); }));
  choose(0);
}

for (const root of document.querySelectorAll(".viewer")) {
  viewer(root, JSON.parse(document.getElementById(root.dataset.meshes).textContent));
}

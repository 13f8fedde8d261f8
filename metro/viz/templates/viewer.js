"use strict";
// A mesh viewer in plain WebGL: dragging and arrow keys turn, + and - zoom, Home and a double click reset.
const VERTEX = `attribute vec3 position, normal; uniform mat4 view; uniform mat3 turn; uniform vec3 centre; varying vec3 n;
void main() { n = turn * normal; gl_Position = view * vec4(turn * (position - centre), 1.0); }`;
const FRAGMENT = `precision mediump float; varying vec3 n; uniform vec4 colour;
void main() {
  vec3 m = normalize(n); if (!gl_FrontFacing) m = -m;
  float key = max(dot(m, normalize(vec3(-0.4, 0.7, 0.8))), 0.0), fill = max(m.z, 0.0);
  gl_FragColor = vec4(colour.rgb * (0.34 + 0.52 * key + 0.2 * fill), colour.a);
}`;

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
  return { p, n };
}

function viewer(root, data) {
  const canvas = root.querySelector("canvas");
  const gl = canvas.getContext("webgl", { antialias: true, alpha: false });
  if (!gl || !gl.getExtension("OES_element_index_uint")) {
    root.querySelector(".status").textContent = "This browser offers no WebGL, so the meshes cannot be turned here.";
    return;
  }
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  const at = name => gl.getUniformLocation(program, name);
  const faces = new Uint32Array(bytes(data.faces));
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  const buffers = { predicted: [gl.createBuffer(), gl.createBuffer()], true: [gl.createBuffer(), gl.createBuffer()] };
  const colours = { predicted: [0.36, 0.58, 0.88, 1], true: [0.95, 0.70, 0.40, 1] };
  const boxes = [...root.querySelectorAll("input")], picture = root.querySelector("img");
  let yaw = 0.4, pitch = 0.1, zoom = 1, centre = [0, 0, 0], radius = 1, chosen = null;

  function choose(index) {
    chosen = data.cases[index];
    let low = [9, 9, 9], high = [-9, -9, -9];
    for (const kind of ["predicted", "true"]) {
      if (!chosen[kind]) continue;
      const { p, n } = unpack(chosen[kind], faces);
      for (const [buffer, array] of [[buffers[kind][0], p], [buffers[kind][1], n]]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
      }
      p.forEach((x, i) => { low[i % 3] = Math.min(low[i % 3], x); high[i % 3] = Math.max(high[i % 3], x); });
    }
    centre = low.map((x, k) => (x + high[k]) / 2);
    radius = 0.54 * Math.hypot(...low.map((x, k) => high[k] - x));
    picture.src = chosen.image;
    picture.alt = `The network's input: ${chosen.label}`;
    root.querySelectorAll("button").forEach((b, i) => b.setAttribute("aria-pressed", i === index));
    boxes.forEach(box => { box.disabled = !chosen[box.value]; });
    draw();
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth * ratio, h = canvas.clientHeight * ratio;
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    gl.viewport(0, 0, w, h);
    gl.clearColor(0.961, 0.969, 0.976, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    gl.uniformMatrix3fv(at("turn"), false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]);
    const s = zoom / radius, side = Math.min(w, h);
    gl.uniformMatrix4fv(at("view"), false, [s * side / w, 0, 0, 0, 0, s * side / h, 0, 0, 0, 0, -0.4 / radius, 0, 0, 0, 0, 1]);
    gl.uniform3fv(at("centre"), centre);
    for (const { value: kind } of boxes.filter(box => box.checked && !box.disabled)) {
      ["position", "normal"].forEach((name, k) => {
        const place = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffers[kind][k]);
        gl.enableVertexAttribArray(place); gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      });
      gl.uniform4fv(at("colour"), colours[kind]);
      gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
    }
  }

  function turn(right, down) { yaw += right; pitch = Math.max(-1.5, Math.min(1.5, pitch + down)); draw(); }
  function enlarge(factor) { zoom = Math.max(0.4, Math.min(8, zoom * factor)); draw(); }
  function reset() { [yaw, pitch, zoom] = [0.4, 0.1, 1]; draw(); }

  let held = null;
  canvas.addEventListener("pointerdown", e => { held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("pointermove", e => {
    if (!held) return;
    turn((e.clientX - held[0]) / 120, (e.clientY - held[1]) / 120);
    held = [e.clientX, e.clientY];
  });
  canvas.addEventListener("wheel", e => {
    if (document.activeElement !== canvas) return;  // whoever only scrolls past must not get stuck here
    e.preventDefault(); enlarge(Math.exp(-e.deltaY / 600));
  }, { passive: false });
  canvas.addEventListener("dblclick", reset);
  const keys = {
    ArrowLeft: () => turn(-0.15, 0), ArrowRight: () => turn(0.15, 0), ArrowUp: () => turn(0, -0.15), ArrowDown: () => turn(0, 0.15),
    "+": () => enlarge(1.15), "=": () => enlarge(1.15), "-": () => enlarge(1 / 1.15), Home: reset,
  };
  canvas.addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || !(e.key in keys)) return;
    e.preventDefault(); keys[e.key]();
  });
  root.querySelectorAll("button").forEach((b, i) => b.addEventListener("click", () => choose(i)));
  boxes.forEach(box => box.addEventListener("change", draw));
  window.addEventListener("resize", draw);
  choose(0);
}

for (const root of document.querySelectorAll(".viewer")) {
  viewer(root, JSON.parse(document.getElementById(root.dataset.meshes).textContent));
}

"use strict";
// Meshes on a turntable, in plain WebGL: dragging and arrow keys turn, + and - zoom, Home and a double click reset.
const VERTEX = `attribute vec3 position, normal; uniform mat4 view; uniform mat3 turn; uniform vec3 centre; varying vec3 n;
void main() { n = turn * normal; gl_Position = view * vec4(turn * (position - centre), 1.0); }`;
const FRAGMENT = `precision mediump float; varying vec3 n; uniform vec4 colour;
void main() {
  vec3 m = normalize(n); if (!gl_FrontFacing) m = -m;
  float key = max(dot(m, normalize(vec3(-0.4, 0.7, 0.8))), 0.0), fill = max(m.z, 0.0);
  gl_FragColor = vec4(colour.rgb * (0.34 + 0.52 * key + 0.2 * fill), colour.a);
}`;

// Null where the browser has no WebGL. Meshes are {positions, normals, faces, colour, hidden}, y up, z towards the viewer.
function turntable(canvas) {
  const gl = canvas.getContext("webgl", { antialias: true, alpha: false });
  if (!gl || !gl.getExtension("OES_element_index_uint")) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  const at = name => gl.getUniformLocation(program, name);
  let yaw = 0.4, pitch = 0.1, zoom = 1, centre = [0, 0, 0], radius = 1, shown = [];

  function filled(target, array) {
    const buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer); gl.bufferData(target, array, gl.STATIC_DRAW);
    return buffer;
  }

  function show(meshes) {
    for (const { buffers } of shown) Object.values(buffers).forEach(buffer => gl.deleteBuffer(buffer));
    const low = [Infinity, Infinity, Infinity], high = low.map(x => -x);
    for (const { positions } of meshes) {
      positions.forEach((x, i) => { low[i % 3] = Math.min(low[i % 3], x); high[i % 3] = Math.max(high[i % 3], x); });
    }
    if (meshes.length) {
      centre = low.map((x, k) => (x + high[k]) / 2);
      radius = 0.54 * Math.hypot(...low.map((x, k) => high[k] - x));
    }
    shown = meshes.map(mesh => ({
      mesh,
      buffers: {
        position: filled(gl.ARRAY_BUFFER, mesh.positions),
        normal: filled(gl.ARRAY_BUFFER, mesh.normals),
        faces: filled(gl.ELEMENT_ARRAY_BUFFER, mesh.faces),
      },
    }));
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
    for (const { mesh, buffers } of shown.filter(({ mesh }) => !mesh.hidden)) {
      for (const name of ["position", "normal"]) {
        const place = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
        gl.enableVertexAttribArray(place); gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.faces);
      gl.uniform4fv(at("colour"), mesh.colour);
      gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_INT, 0);
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
  window.addEventListener("resize", draw);
  return { show, draw };
}

// The contents mark the section that is being read, and on a narrow screen scroll to it.
const marks = new Map([...document.querySelectorAll(".contents a")].map(a => [a.hash.slice(1), a]));

function mark() {
  const passed = [...document.querySelectorAll("main > section")].filter(s => s.getBoundingClientRect().top < 120);
  const link = marks.get((passed.at(-1) ?? document.querySelector("main > section")).id);
  if (link.hasAttribute("aria-current")) return;
  for (const other of marks.values()) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  const list = link.parentElement;
  list.scrollTo({ left: link.offsetLeft - list.offsetLeft - list.clientWidth / 3 });
}

addEventListener("scroll", mark, { passive: true });
mark();

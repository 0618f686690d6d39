"use strict";
// tables sort by the column whose title is clicked; missing numbers go last
for (const table of document.querySelectorAll("table.sorts")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => title.firstElementChild.addEventListener("click", () => {
    const numeric = title.classList.contains("n");
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const order = title.getAttribute("aria-sort") === first ? second : first;
    titles.forEach(other => other.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const compare = (a, b) => {
      if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      const [x, y] = [a, b].map(row => Number(row.cells[column].dataset.value));
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
// one of several matrices is shown; without this script all of them are
for (const box of document.querySelectorAll(".switch")) {
  const parts = [...box.querySelectorAll("[data-choice]")];
  const choose = name => parts.forEach(part => part.hidden = part.dataset.choice !== name);
  const choices = box.querySelector(".choices");
  choices.hidden = false;
  choices.addEventListener("change", event => choose(event.target.value));
  choose(choices.querySelector("input:checked").value);
}
// what is wider than the page says so, and fades where there is more
for (const box of document.querySelectorAll(".scroll")) {
  const cue = document.createElement("p");
  cue.className = "cue";
  cue.textContent = "wider than the page: scroll sideways →";
  box.after(cue);
  const look = () => {
    const wider = box.scrollWidth - box.clientWidth;
    cue.hidden = wider < 4;
    box.classList.toggle("more", wider - box.scrollLeft >= 4);
  };
  box.addEventListener("scroll", look, {passive: true});
  new ResizeObserver(look).observe(box);
}
// row and column of a number, shown below the matrix and as its title
for (const figure of document.querySelectorAll("figure.matrix")) {
  const readout = figure.querySelector(".readout");
  const columns = figure.querySelector("thead").rows[0].cells;
  const tell = event => {
    const cell = event.target.closest("td[class^=q]");
    if (!cell || !cell.closest("tbody")) return;
    const row = cell.parentElement.cells[0].textContent;
    cell.title = `${row}, ${columns[cell.cellIndex].textContent}: ${cell.textContent}`;
    readout.textContent = cell.title;
    figure.querySelectorAll(".here").forEach(other => other.classList.remove("here"));
    cell.classList.add("here");
  };
  figure.addEventListener("pointerover", tell);
  figure.addEventListener("click", tell);
}

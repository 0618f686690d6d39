// what a browser makes of a page, as JSON in an element of its own
addEventListener("load", () => setTimeout(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const parse = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => c / 255).map(s => s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const surface = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour[3] > 250) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const illegible = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color).slice(0, 3);
    const ratio = contrast(ink, surface(element));
    if (ratio < 4.5) illegible.add(`${node.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  const figures = [...document.querySelectorAll("figure, .panels svg, .mistakes img")].filter(f => f.checkVisibility());
  const empty = figures.filter(f => {
    const box = f.getBoundingClientRect();
    return box.width < 40 || box.height < 20;
  }).map(f => f.textContent.trim().slice(0, 40));
  let sorted = 0;
  const tables = [...document.querySelectorAll("table.sorts")];
  for (const table of tables) {
    const column = [...table.tHead.rows[0].cells].findIndex(c => c.classList.contains("n"));
    const values = () => [...table.tBodies[0].rows].map(r => Number(r.cells[column].dataset.value)).filter(v => !Number.isNaN(v));
    const button = table.tHead.rows[0].cells[column].firstElementChild;
    const before = values().sort((a, b) => a - b);
    button.click();
    const down = values();
    button.click();
    const up = values();
    sorted += up.every((v, i) => v === before[i]) && down.every((v, i) => v === before[before.length - 1 - i]);
  }
  const visible = () => [...document.querySelectorAll("[data-choice]")].filter(p => p.checkVisibility());
  const first = visible();
  const choices = document.querySelectorAll(".choices input");
  choices[3].click();
  const second = visible();
  second[0].querySelector("td[class^=q]").click();
  const result = document.createElement("script");
  result.type = "probe";
  result.textContent = JSON.stringify({
    errors,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    figures: figures.length,
    empty,
    illegible: [...illegible],
    tables: tables.length,
    sorted,
    overflow: document.documentElement.scrollWidth - innerWidth,
    shown: [first.length, second.length],
    readout: second[0] !== first[0] && /^after 1, .+: \d/.test(second[0].querySelector(".readout").textContent),
  });
  document.body.append(result);
}, 200));

document.addEventListener("DOMContentLoaded", () => {
  // A long name in a table is broken between its words, and copied without the break.
  for (const code of document.querySelectorAll("article table.docutils code .pre")) {
    const words = code.textContent.split(/(?<=[a-z0-9)][_./(=])(?=[a-z0-9])/i);
    code.replaceChildren(...words.flatMap((word, i) => (i ? [document.createElement("wbr"), word] : [word])));
  }
  // On a phone the rows of a table are cards (site.css): each cell says which column it is of.
  for (const table of document.querySelectorAll("article table.docutils")) {
    const headings = [...table.querySelectorAll("thead th")].map((each) => each.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, column) => {
        const text = cell.textContent.trim();
        if (!text) cell.classList.add("is-empty");
        if (headings[column]) cell.dataset.label = headings[column];
        if (column > 0 && headings[column] && /^[-+±]?[\d.,]+( \S+)?$/.test(text))
          cell.classList.add("is-short");
      });
    }
  }
});

// Before the first paint, so that a chosen theme does not flash the other one. Its own file: the page's policy allows no inline script.
try {
  for (const name of ["theme", "density"]) {
    const value = localStorage.getItem(`console.${name}`);
    if (value) document.documentElement.dataset[name] = value;
  }
} catch {}

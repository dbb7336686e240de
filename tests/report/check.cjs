// Opens pages of `tessera report` in headless Chromium and says what is wrong with them: errors of the console, requests,
// pictures or sounds that do not load, text that is wider than a phone, and what axe finds.
//
//   npm install --prefix DIR puppeteer-core axe-core
//   NODE_PATH=DIR/node_modules node tests/report/check.cjs PAGE.html... [--out FOLDER]
//
// CHROMIUM names the browser (/usr/bin/chromium). With --out there are screenshots: light, dark, phone, and the print as PDF.
// Ends with 1 if a page has a fault.
"use strict";
const { pathToFileURL } = require("node:url");
const path = require("node:path");
const fs = require("node:fs");
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const VIEWS = [
  { name: "light", width: 1200, height: 900, scheme: "light" },
  { name: "dark", width: 1200, height: 900, scheme: "dark" },
  { name: "phone", width: 390, height: 844, scheme: "light" },
  { name: "phone-dark", width: 390, height: 844, scheme: "dark" },
];

// Runs in the page: what did not load, and what is too wide.
async function loaded() {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const images = [...document.images];
  await Promise.all(images.map((image) => image.decode().catch(() => 0)));
  const heard = (audio) => new Promise((done) => {
    if (audio.readyState > 0) done();
    audio.addEventListener("loadedmetadata", done);
    audio.addEventListener("error", done);
    setTimeout(done, 5000);
  });
  const sounds = [...document.querySelectorAll("audio")];
  await Promise.all(sounds.map(heard));
  const broken = images.filter((image) => !image.naturalWidth).map((image) => image.alt);
  const silent = sounds.filter((audio) => !(audio.duration > 0)).map((audio) => audio.ariaLabel);
  const wide = document.documentElement.scrollWidth - innerWidth;
  const charts = document.querySelectorAll("figure.chart");
  const bare = [...charts].filter((chart) => !chart.querySelector("details table")).length;
  return { images: images.length, sounds: sounds.length, charts: charts.length, broken, silent, wide, bare };
}

async function check(browser, file, out) {
  const faults = [], view = {};
  for (const { name, width, height, scheme } of VIEWS) {
    const page = await browser.newPage();
    await page.setViewport({ width, height, isMobile: false });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    const url = pathToFileURL(path.resolve(file)).href;
    page.on("console", (message) => {
      if (["error", "warn"].includes(message.type())) faults.push(`${name}: console: ${message.text()}`);
    });
    page.on("pageerror", (error) => faults.push(`${name}: ${error.message}`));
    page.on("request", (request) => {
      if (request.url() !== url && !request.url().startsWith("data:")) faults.push(`${name}: asks for ${request.url()}`);
    });
    await page.goto(url, { waitUntil: "load" });
    if (out) {
      const shot = path.join(out, `${path.basename(file, ".html")}-${name}.png`);
      await page.screenshot({ path: shot, fullPage: true });
    }
    const told = await page.evaluate(loaded);
    Object.assign(view, { images: told.images, sounds: told.sounds, charts: told.charts });
    for (const alt of told.broken) faults.push(`${name}: a picture does not load: ${alt}`);
    for (const label of told.silent) faults.push(`${name}: a sound does not load: ${label}`);
    if (told.wide > 0) faults.push(`${name}: ${told.wide} pixels too wide`);
    if (told.bare > 0) faults.push(`${name}: ${told.bare} charts without a table`);
    // Axe is put in by the debugger, which the page's policy does not hold for; details are open by now.
    await page.evaluate(axe);
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const one of found.violations) {
      const where = one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join("; ");
      faults.push(`${name}: axe, ${one.impact}: ${one.help}: ${one.nodes.length} times, ${where}`);
    }
    if (out && name === "light") await page.pdf({ path: path.join(out, `${path.basename(file, ".html")}.pdf`), printBackground: true });
    await page.close();
  }
  return { faults, view };
}

async function main() {
  const words = process.argv.slice(2), at = words.indexOf("--out");
  const out = at < 0 ? null : words.splice(at, 2)[1];
  if (out) fs.mkdirSync(out, { recursive: true });
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await puppeteer.launch({ executablePath, protocolTimeout: 600000, args: ["--no-sandbox", "--allow-file-access-from-files"] });
  let isWrong = false;
  for (const file of words) {
    const { faults, view } = await check(browser, file, out);
    const size = (fs.statSync(file).size / 1e6).toFixed(2);
    console.log(`${file}: ${size} MB, ${view.images} pictures, ${view.sounds} sounds, ${view.charts} charts, ${faults.length} faults`);
    for (const fault of faults) console.log(`  ${fault}`);
    isWrong ||= faults.length > 0;
  }
  await browser.close();
  process.exitCode = isWrong ? 1 : 0;
}

main();

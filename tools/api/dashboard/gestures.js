// What a wheel does on the chart: alone it scrolls the page; with Ctrl (or Command), as of a pinch on a touch pad, it
// zooms around the pointer; sideways it moves the chart.

const ZOOM = 0.0025;
const STEP_MAX = 200;
const LINE_PIXELS = 16;

/** Makes the wheel move `chart`, which is drawn in `container`. */
export function onWheel(container, chart) {
  const listen = (event) => {
    const range = chart.timeScale().getVisibleLogicalRange();
    const zooms = event.ctrlKey || event.metaKey;
    if (!range || !(zooms || Math.abs(event.deltaX) > Math.abs(event.deltaY))) return;
    event.preventDefault();
    const pixels = event.deltaMode ? LINE_PIXELS : 1;
    const step = (delta) => Math.max(-STEP_MAX, Math.min(STEP_MAX, delta * pixels));
    const width = range.to - range.from;
    if (zooms) {
      const factor = Math.exp(step(event.deltaY) * ZOOM);
      const at = chart.timeScale().coordinateToLogical(event.clientX - container.getBoundingClientRect().left) ?? range.to;
      chart.timeScale().setVisibleLogicalRange({ from: at - (at - range.from) * factor, to: at + (range.to - at) * factor });
    } else {
      const places = (step(event.deltaX) / container.clientWidth) * width;
      chart.timeScale().setVisibleLogicalRange({ from: range.from + places, to: range.to + places });
    }
  };
  container.addEventListener("wheel", listen, { passive: false });
}

// Gives ECharts what the page holds. No text of the session becomes markup: tooltips escape it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = () => window.innerWidth < 600;
  const escape = echarts.format.encodeHTML;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let drawn = [];

  const time = (ns) => {
    const size = Math.abs(ns);
    const [by, unit] = size < 1e3 ? [1, "ns"] : size < 1e6 ? [1e3, "us"] : size < 1e9 ? [1e6, "ms"] : [1e9, "s"];
    return `${Number((ns / by).toPrecision(4))} ${unit}`;
  };
  const worded = (unit) => (value) => (unit === "ns" ? time(value) : Number(Number(value).toPrecision(4)) + (unit === "%" ? " %" : ""));

  // What all charts have in common.
  const common = (option) => {
    const axis = (given, unit, isNarrowName) => ({
      ...given,
      nameLocation: "middle",
      nameGap: given === option.yAxis ? 44 : 28,
      nameTextStyle: { color: css("--quiet") },
      axisLine: { onZero: false, lineStyle: { color: css("--line") } },
      splitLine: { show: given.type !== "category", lineStyle: { color: css("--line") } },
      axisLabel: {
        color: css("--quiet"),
        hideOverlap: true,
        formatter: given.type === "category" ? (option.labels && !isNarrowName ? (value) => time(+value) : undefined) : worded(unit),
        ...(isNarrowName && given.type === "category" ? { width: narrow() ? 110 : 250, overflow: "truncate", fontSize: 11 } : {}),
      },
    });
    const horizontal = option.yAxis.type === "category";
    return {
      animation: false,
      textStyle: { color: css("--text") },
      color: [css("--accent"), css("--medium"), css("--low"), css("--high"), "#8e63ce", css("--quiet")],
      ...(option.zoom ? { dataZoom: [{ type: "inside", filterMode: "none" }] } : {}),
      grid: { left: option.yAxis.name ? 28 : 8, right: 24, top: option.legend ? 30 : 10, bottom: option.xAxis.name ? 26 : 6, containLabel: true },
      ...option,
      legend: option.legend && { ...option.legend, textStyle: { color: css("--text") } },
      visualMap: option.visualMap && { ...option.visualMap, inRange: { color: [css("--card"), css("--accent")] } },
      xAxis: axis(option.xAxis, horizontal ? option.unit : option.unitX, false),
      yAxis: axis(option.yAxis, option.unit, horizontal),
      tooltip: { ...tip(), formatter: (at) => tooltip(option, at) },
      series: option.series.map((series) => ({
        ...series,
        ...(series.markLine ? { markLine: { ...series.markLine, label: { show: false }, lineStyle: { color: css("--quiet") } } } : {}),
        ...(option.bubbles ? { symbolSize: (point) => 6 + 60 * Math.sqrt(point[2]) } : {}),
      })),
    };
  };
  const tip = () => ({
    confine: true,
    backgroundColor: css("--card"),
    borderColor: css("--line"),
    textStyle: { color: css("--text"), fontSize: 12.5 },
    extraCssText: "max-width: 90vw; white-space: normal; overflow-wrap: anywhere;",
  });
  const tooltip = (option, at) => {
    if (option.bubbles === "roofline") {
      const [memory, compute, share, name, bound, flop] = at.value;
      const intensity = flop === null ? "" : `, ${worded()(flop)} FLOP a byte`;
      return `${escape(name)}<br>memory ${worded("%")(memory)}, compute ${worded("%")(compute)}: ${bound}${intensity}<br>${worded("%")(100 * share)} of the time`;
    }
    if (at.seriesType === "line") return `at ${time(at.value[0])}: ${escape(at.seriesName)} ${worded("%")(at.value[1])}`;
    if (option.bubbles) {
      const [waves, occupancy, share, name] = at.value;
      return `${escape(name)}<br>${worded()(waves)} waves, occupancy ${worded("%")(occupancy)}, ${worded("%")(100 * share)} of the time`;
    }
    if (at.seriesType === "heatmap") {
      const [bar, row, , count] = at.value;
      return `${escape(option.yAxis.data[row])}<br>${time(option.xAxis.data[bar])} and more: ${count}`;
    }
    if (at.seriesType === "scatter") return `at ${time(at.value[0])}: ${escape(at.seriesName)} ${time(at.value[1])}`;
    const count = option.counts ? `, ${option.counts[at.dataIndex]} waits` : "";
    const of = option.legend ? `${escape(at.seriesName)}, ` : "";
    return `${of}${escape(option.labels ? `from ${time(+at.name)}` : at.name)}: <b>${time(at.value)}</b>${count}`;
  };

  const draw = (id, option) => {
    const element = document.getElementById(id);
    if (!element) return;
    const chart = echarts.init(element);
    chart.setOption(option);
    drawn.push(chart);
    return chart;
  };

  // The timeline: spans by lane, in levels that are each four times as coarse as the one before.
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const read = (bytes, lanes) => {
    let at = 0;
    const number = () => {
      let value = 0, scale = 1, byte;
      do {
        byte = bytes[at++];
        value += (byte & 0x7f) * scale;
        scale *= 128;
      } while (byte & 0x80);
      return value;
    };
    return lanes.map(({ spans }) => {
      const level = fresh(spans, 0);
      let before = 0;
      for (let i = 0; i < spans; i++) {
        const zigzag = number();
        const start = before + (zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2);
        before = start + number();
        const name = number(), count = number() + 1;
        put(level, start, before, name, count, before - start - number());
      }
      return [level];
    });
  };
  const fresh = (size, resolution) => ({
    resolution, size: 0, start: new Float64Array(size), end: new Float64Array(size), name: new Uint32Array(size),
    count: new Uint32Array(size), busy: new Float64Array(size), longest: new Float64Array(size),
  });
  const put = (level, start, end, name, count, busy, longest = busy) => {
    const i = level.size++;
    [level.start[i], level.end[i], level.name[i], level.count[i], level.busy[i], level.longest[i]] = [start, end, name, count, busy, longest];
  };
  const coarser = (level) => {
    const resolution = Math.max(2000, level.resolution * 4);
    const next = fresh(level.size, resolution);
    for (let i = 0; i < level.size; i++) {
      const last = next.size - 1;
      const end = last < 0 ? 0 : Math.max(next.end[last], level.end[i]);
      if (last >= 0 && end - next.start[last] <= resolution) {
        next.end[last] = end;
        next.count[last] += level.count[i];
        next.busy[last] += level.busy[i];
        if (level.longest[i] > next.longest[last]) [next.longest[last], next.name[last]] = [level.longest[i], level.name[i]];
      } else put(next, level.start[i], level.end[i], level.name[i], level.count[i], level.busy[i], level.longest[i]);
    }
    for (const key of ["start", "end", "name", "count", "busy", "longest"]) next[key] = next[key].slice(0, next.size);
    return next;
  };
  // Boxes that are drawn at once: more only take time, and a screen has no more columns.
  const MOST = 3000;
  const first = (level, from) => {
    let low = 0, high = level.size;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (level.end[middle] < from) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const visible = (levels, from, to, most) => {
    for (let depth = 0; ; depth++) {
      if (depth === levels.length) levels.push(coarser(levels[depth - 1]));
      const level = levels[depth];
      const begin = first(level, from), end = first({ ...level, end: level.start }, to);
      if (end - begin <= most || level.resolution > to) return [level, begin, end];
    }
  };

  const colour = (name) => {
    let hash = 7;
    for (let i = 0; i < name.length; i++) hash = (hash * 31 + name.charCodeAt(i)) >>> 0;
    return `hsl(${(hash * 137) % 360} 55% ${dark.matches ? 52 : 60}%)`;
  };
  const fixed = { step: "#7d8aa0", layer: null, copy: "#d4793a", range: null, stream: null };

  const timeline = ({ lanes, names, length: known }, levels) => {
    const length = Math.max(1, known);
    const colours = names.map(colour);
    const height = 84 + lanes.length * (narrow() ? 20 : 24);
    document.getElementById("timeline").style.height = `${height}px`;
    // A lane is one item, which draws what is in sight of it: so a zoom is one drawing, of few boxes.
    const boxes = (params, api) => {
      const row = params.dataIndex, lane = lanes[row];
      const { x: left, width } = params.coordSys;
      const [zero, y] = api.coord([0, row]);
      const scale = (api.coord([length, row])[0] - zero) / length;
      const from = (left - zero) / scale;
      const [level, begin, end] = visible(levels[row], from, from + width / scale, MOST / lanes.length);
      const high = api.size([0, 1])[1] * 0.78;
      const children = [];
      for (let i = begin; i < end; i++) {
        const x = Math.max(left, left + (level.start[i] - from) * scale);
        const right = Math.min(left + width, left + (level.end[i] - from) * scale);
        const name = level.name[i], count = level.count[i], busy = level.busy[i], span = level.end[i] - level.start[i];
        const shape = { x, y: y - high / 2, width: Math.max(right - x, 0.6), height: high };
        children.push({
          type: "rect",
          shape,
          info: { row, start: level.start[i], span, name, count, busy },
          style: { fill: fixed[lane.kind] ?? colours[name], opacity: 0.3 + 0.7 * Math.min(1, busy / Math.max(1, span)) },
          textContent: shape.width > 46 && count === 1
            && { silent: true, style: { text: names[name], fill: "#fff", fontSize: 11, width: shape.width - 8, overflow: "truncate" } },
          textConfig: { position: "insideLeft" },
        });
      }
      // Anew each time: ECharts leaves a text on a box that it takes for another one.
      return { type: "group", $mergeChildren: false, emphasisDisabled: true, children };
    };
    const words = ({ row, start, span, name, count, busy }) =>
      `${escape(lanes[row].label)}<br><b>${escape(names[name])}</b>${count > 1 ? ` and ${count - 1} more, ${time(busy)} in ` : "<br>"}${time(span)}, at ${time(start)}`;
    const chart = draw("timeline", {
      animation: false,
      grid: { left: 8, right: 34, top: 8, bottom: 50, containLabel: true },
      xAxis: {
        type: "value", min: 0, max: length,
        axisLabel: { color: css("--quiet"), hideOverlap: true, formatter: time }, splitLine: { lineStyle: { color: css("--line") } },
      },
      yAxis: {
        type: "category", inverse: true, data: lanes.map((lane) => lane.label), axisTick: { show: false },
        axisLine: { lineStyle: { color: css("--line") } },
        axisLabel: { color: css("--quiet"), interval: 0, fontSize: 11, width: narrow() ? 84 : 190, overflow: "truncate" },
      },
      dataZoom: [
        { type: "inside", filterMode: "none", minValueSpan: 200, throttle: 30 },
        { type: "slider", filterMode: "none", minValueSpan: 200, height: 18, bottom: 8, showDataShadow: false, labelFormatter: time, textStyle: { color: css("--quiet") } },
      ],
      tooltip: { ...tip(), triggerOn: "none" },
      series: [{ type: "custom", renderItem: boxes, encode: { x: 0, y: 1 }, clip: true, data: lanes.map((_, row) => [0, row]) }],
    });
    // A tooltip of its own accord knows the item, but not which box of it.
    chart.on("mousemove", ({ info, event: { offsetX: x, offsetY: y } }) =>
      chart.dispatchAction({ type: "showTip", x, y, tooltip: { formatter: () => words(info) } }));
    chart.on("mouseout", () => chart.dispatchAction({ type: "hideTip" }));
  };

  let unpacked;
  const drawAll = async () => {
    drawn.forEach((chart) => chart.dispose());
    drawn = [];
    for (const [id, option] of Object.entries(data.charts)) draw(id, common(option));
    if (data.timeline) {
      unpacked ??= read(await unpack(data.timeline.spans), data.timeline.lanes);
      timeline(data.timeline, unpacked);
    }
    document.body.dataset.drawn = "yes";
  };
  window.addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
  dark.addEventListener("change", drawAll);
  drawAll();
})();

//! Latency over time while tokens are refreshed, one panel per peer.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FAINT, anchored, colour_of, font, measured, origin};
use crate::peers::BoxError;
use crate::results::Results;
use crate::scenarios::rollover::Rollover;

const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (580, 190);
const HEAD: u32 = 84;
const FOOT: u32 = 30;
/// The background while a token request is in progress.
const REFRESH: RGBColor = RGBColor(205, 205, 205);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) fn draw(results: &Results, file: &Path) -> Result<(), BoxError> {
    let panels: Vec<_> = measured(&results.rollover).collect();
    let Some((_, first)) = panels.first() else {
        return Ok(());
    };
    let slowest = panels.iter().map(|(_, it)| slowest(it));
    let end = slowest.fold(first.token_latency_ms, f64::max) * 1.1;

    let rows = panels.len().div_ceil(COLUMNS);
    let size = (
        PANEL.0 * COLUMNS as u32,
        HEAD + PANEL.1 * rows as u32 + FOOT,
    );
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(
        "Latency while tokens are refreshed",
        (20, 14),
        font(24),
    ))?;
    let subtitle = format!(
        "slowest request in each {} ms; grey: a token request; \
         {} requests in {} s over loopback, {} s tokens, token endpoint {} ms",
        first.plotted.slot_ms,
        first.requests,
        first.seconds,
        first.token_lifetime_s,
        first.token_latency_ms
    );
    root.draw(&Text::new(subtitle, (20, 48), font(15)))?;
    let foot = anchored(13, HPos::Right, VPos::Bottom);
    root.draw(&Text::new(
        origin(results),
        (size.0 as i32 - 20, size.1 as i32 - 8),
        foot,
    ))?;

    let area = root.margin(HEAD, FOOT, 0, 0);
    let areas = area.split_evenly((rows, COLUMNS));
    for (area, (peer, numbers)) in areas.iter().zip(panels) {
        draw_panel(area, peer, numbers, colour_of(results, peer), end)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    peer: &str,
    numbers: &Rollover,
    colour: RGBColor,
    end: f64,
) -> Result<(), BoxError> {
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{peer}: {:.0} delayed by refreshes", numbers.delayed.median),
            font(17),
        )
        .margin_left(14)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..f64::from(numbers.seconds), 0.0..end)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("ms")
        .x_labels(numbers.seconds as usize + 1)
        .y_labels(5)
        .x_label_formatter(&|at| format!("{at:.0}"))
        .y_label_formatter(&|ms| format!("{ms:.0}"))
        .axis_desc_style(font(14))
        .label_style(font(13))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .draw()?;
    let plotted = &numbers.plotted;
    for at in &plotted.token_requests_at_s {
        let mark = [(*at, 0.0), (at + numbers.token_latency_ms / 1e3, end)];
        chart.draw_series([Rectangle::new(mark, REFRESH.filled())])?;
    }
    let slots = plotted.slowest_in_slot_ms.iter().enumerate();
    let middle_of = |slot| (slot as f64 + 0.5) * plotted.slot_ms / 1e3;
    let points = slots.filter_map(|(slot, ms)| Some((middle_of(slot), (*ms)?)));
    chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    Ok(())
}

fn slowest(numbers: &Rollover) -> f64 {
    numbers
        .plotted
        .slowest_in_slot_ms
        .iter()
        .flatten()
        .copied()
        .fold(0.0, f64::max)
}

//! The time added to a request, as a bar chart.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FAINT, TEXT, anchored, colour_of, font, measured, origin};
use crate::peers::BoxError;
use crate::results::Results;
use crate::stats::Spread;

const SIZE: (u32, u32) = (1000, 640);
const STATIC_HEADER: RGBColor = RGBColor(170, 170, 170);

/// Space for the names on the left.
const MARGIN: u32 = 270;

pub(super) fn draw(results: &Results, file: &Path) -> Result<(), BoxError> {
    let rows: Vec<_> = measured(&results.hot_path).collect();
    let most = rows
        .iter()
        .map(|(_, it)| it.added_ns.third_quartile.max(it.added_ns.median));
    // Outlying quartiles, caused by other load on the machine, do not determine the scale.
    let medians = rows
        .iter()
        .map(|(_, it)| it.added_ns.median)
        .fold(1.0, f64::max);
    let end = most.fold(1.0, f64::max).min(medians * 1.6) * 1.15;

    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Time added to a request with a fresh token, without sockets";
    root.draw(&Text::new(title, (20, 16), font(24)))?;
    let legend = "coloured: the peer; grey: a static header in the same stack; \
                  both without the time of the bare stack; lines: quartiles";
    root.draw(&Text::new(legend, (20, 50), font(15)))?;
    let foot = anchored(13, HPos::Right, VPos::Bottom);
    root.draw(&Text::new(
        origin(results),
        (SIZE.0 as i32 - 20, SIZE.1 as i32 - 8),
        foot,
    ))?;

    let (_, area) = root.split_vertically(80);
    let mut chart = ChartBuilder::on(&area)
        .margin_right(60)
        .margin_bottom(24)
        .x_label_area_size(56)
        .y_label_area_size(MARGIN)
        .build_cartesian_2d(0.0..end, 0.0..rows.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_desc("nanoseconds per request, median")
        .x_label_formatter(&|ns| format!("{ns:.0}"))
        .x_labels(8)
        .axis_desc_style(font(16))
        .label_style(font(15))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .draw()?;

    for (place, (peer, numbers)) in rows.iter().enumerate() {
        // From the top down.
        let top = (rows.len() - place) as f64;
        let colour = colour_of(results, peer);
        let bars = [
            (&numbers.added_ns, colour, top - 0.14, top - 0.52, 15),
            (
                &numbers.static_header_added_ns,
                STATIC_HEADER,
                top - 0.56,
                top - 0.80,
                12,
            ),
        ];
        for (spread, colour, upper, lower, size) in bars {
            let bar = [(0.0, upper), (spread.median.max(0.0), lower)];
            chart.draw_series([Rectangle::new(bar, colour.filled())])?;
            let middle = f64::midpoint(upper, lower);
            let (from, to) = whisker(spread, end);
            chart.draw_series([PathElement::new([(from, middle), (to, middle)], TEXT)])?;
            let label = format!("{:.0}", spread.median);
            let (x, y) = chart.backend_coord(&(to.max(spread.median), middle));
            let style = anchored(size, HPos::Left, VPos::Center);
            root.draw(&Text::new(label, (x + 8, y), style))?;
        }
        let (x, y) = chart.backend_coord(&(0.0, top - 0.33));
        root.draw(&Text::new(
            *peer,
            (x - 10, y),
            anchored(16, HPos::Right, VPos::Center),
        ))?;
    }
    root.present()?;
    Ok(())
}

/// Returns the quartiles, limited to the range of the plot.
fn whisker(spread: &Spread, end: f64) -> (f64, f64) {
    (
        spread.first_quartile.clamp(0.0, end),
        spread.third_quartile.clamp(0.0, end),
    )
}

//! The cumulative number of token requests while the token endpoint is down.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FAINT, TEXT, anchored, colour_of, font, measured, origin};
use crate::peers::BoxError;
use crate::results::Results;
use crate::scenarios::outage::Outage;

const SIZE: (u32, u32) = (1000, 620);

/// Space for the names of lines on the right.
const MARGIN: u32 = 250;

/// The distance in pixels below which two line ends count as overlapping.
const OVERLAP: i32 = 4;

/// The distance between two names, in pixels.
const LINE: i32 = 20;

pub(super) fn draw(results: &Results, file: &Path) -> Result<(), BoxError> {
    let rows: Vec<_> = measured(&results.outage).collect();
    let Some((_, first)) = rows.first() else {
        return Ok(());
    };
    let most = rows
        .iter()
        .map(|(_, it)| steps(it).last().map_or(1.0, |it| it.1));
    let end = most.fold(10.0, f64::max) * 1.6;

    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(
        "Token requests while the token endpoint is down",
        (20, 14),
        font(24),
    ))?;
    let subtitle = format!(
        "cumulative, log scale; 503 without delay for {} s, {} callers/s, \
         the token expires after {} s",
        first.seconds, first.callers_per_second, first.token_expired_at_s
    );
    root.draw(&Text::new(subtitle, (20, 48), font(15)))?;
    let foot = anchored(13, HPos::Right, VPos::Bottom);
    root.draw(&Text::new(
        origin(results),
        (SIZE.0 as i32 - 20, SIZE.1 as i32 - 8),
        foot,
    ))?;

    let (_, area) = root.split_vertically(80);
    let mut chart = ChartBuilder::on(&area)
        .margin_left(16)
        .margin_right(MARGIN)
        .margin_bottom(24)
        .x_label_area_size(52)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..first.seconds, (0.8..end).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("seconds since the outage began")
        .y_desc("token requests")
        .x_labels(10)
        .x_label_formatter(&|at| format!("{at:.0}"))
        .y_label_formatter(&|count| format!("{count:.0}"))
        .axis_desc_style(font(16))
        .label_style(font(15))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .draw()?;
    let expired = first.token_expired_at_s;
    chart.draw_series(DashedLineSeries::new(
        [(expired, 0.8), (expired, end)],
        6,
        5,
        TEXT.into(),
    ))?;
    let (x, y) = chart.backend_coord(&(expired, end));
    let note = anchored(14, HPos::Left, VPos::Top);
    root.draw(&Text::new("the token expires", (x + 8, y + 6), note))?;

    let lines: Vec<_> = rows
        .iter()
        .map(|(peer, numbers)| (*peer, steps(numbers)))
        .collect();
    let ends: Vec<_> = lines
        .iter()
        .map(|(_, points)| chart.backend_coord(points.last().unwrap_or(&(0.0, 1.0))))
        .collect();
    let mut names = Vec::new();
    for (place, (peer, points)) in lines.into_iter().enumerate() {
        let colour = colour_of(results, peer);
        let count = points.last().map_or(0.0, |point| point.1);
        let (x, y) = ends[place];
        names.push((x, y, format!("{peer}: {count}"), colour));
        // Wider than the lines that are drawn over it.
        let over = ends[place + 1..]
            .iter()
            .filter(|end| (end.1 - y).abs() < OVERLAP)
            .count();
        let style = colour.stroke_width(2 + 3 * over as u32);
        chart.draw_series(LineSeries::new(points, style))?;
    }
    // Places each name at the end of its line, without overlaps.
    names.sort_by_key(|(_, y, ..)| *y);
    let mut free = i32::MIN;
    for (x, y, name, colour) in names {
        let place = y.max(free);
        free = place + LINE;
        root.draw(&PathElement::new(
            [(x + 2, y), (x + 14, place)],
            colour.stroke_width(1),
        ))?;
        let style = anchored(15, HPos::Left, VPos::Center).color(&colour);
        root.draw(&Text::new(name, (x + 18, place), style))?;
    }
    root.present()?;
    Ok(())
}

/// Returns the cumulative number of requests, from the first one to the end of the outage.
fn steps(numbers: &Outage) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut count = 0.0;
    for at in numbers
        .token_requests_at_s
        .iter()
        .filter(|at| **at < numbers.seconds)
    {
        if count > 0.0 {
            points.push((*at, count));
        }
        count += 1.0;
        points.push((*at, count));
    }
    if count > 0.0 {
        points.push((numbers.seconds, count));
    }
    points
}

//! The plots, as SVG.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peers::BoxError;
use crate::results::Results;
use crate::scenarios::{Outcome, Row};

mod hot_path;
mod outage;
mod rollover;

/// Colours that people with colour blindness can tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(110, 80, 20),
    RGBColor(230, 159, 0),
];

const GREY: RGBColor = RGBColor(120, 120, 120);
const TEXT: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

pub(crate) fn draw(results: &Results, folder: &Path) -> Result<(), BoxError> {
    hot_path::draw(results, &folder.join("hot_path.svg"))?;
    rollover::draw(results, &folder.join("rollover.svg"))?;
    outage::draw(results, &folder.join("outage.svg"))
}

/// Returns the colour of a peer, the same in all plots, or grey for the baseline without tokens.
fn colour_of(results: &Results, peer: &str) -> RGBColor {
    let mut peers = results.peers.iter();
    let place = peers.position(|it| peer.starts_with(it.name));
    place.map_or(GREY, |place| COLOURS[place % COLOURS.len()])
}

fn measured<T>(rows: &[Row<T>]) -> impl Iterator<Item = (&'static str, &T)> {
    rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Measured(numbers) => Some((row.peer, numbers)),
        Outcome::None(_) | Outcome::Failed(_) => None,
    })
}

fn font(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT)
}

fn anchored(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    font(size).pos(Pos::new(horizontal, vertical))
}

/// Returns the machine and the date, for the foot of a plot.
fn origin(results: &Results) -> String {
    let machine = &results.machine;
    let date = results.date.split('T').next().unwrap_or_default();
    let quick = if results.quick { ", QUICK RUN" } else { "" };
    format!("{}, {} cores, {date}{quick}", machine.cpu, machine.cores)
}

//! A report as a plot: a panel for each quantity, a group of bars for each case, a bar for each contender.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measurement::number;
use super::{Measurement, Report, distinct};

const PANEL: (u32, u32) = (470, 250);
const COLUMNS: usize = 3;
const LEGEND_HEIGHT: u32 = 50;

/// Colours that people with a colour vision deficiency tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(240, 228, 66),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The SVG text.
///
/// # Errors
/// The plot cannot be drawn.
pub fn svg(report: &Report) -> Result<String> {
    let mut quantities: Vec<&Measurement> = Vec::new();
    for result in &report.results {
        if result.value.is_some() && !quantities.iter().any(|known| known.what == result.what) {
            quantities.push(result);
        }
    }
    let contenders = distinct(report.results.iter().map(|result| result.who.as_str()));
    let rows = quantities.len().div_ceil(COLUMNS).max(1);
    let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * rows as u32 + LEGEND_HEIGHT);
    let mut text = String::new();
    let drawn =
        draw(&SVGBackend::with_string(&mut text, size).into_drawing_area(), report, &quantities, &contenders);
    drawn.map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area, report: &Report, quantities: &[&Measurement], contenders: &[&str]) -> Drawn {
    root.fill(&WHITE)?;
    let (legend, panels) = root.split_vertically(LEGEND_HEIGHT);
    draw_legend(&legend, report, contenders)?;
    let rows = quantities.len().div_ceil(COLUMNS).max(1);
    for (panel, quantity) in panels.split_evenly((rows, COLUMNS)).iter().zip(quantities) {
        draw_panel(panel, report, quantity, contenders)?;
    }
    root.present()?;
    Ok(())
}

fn draw_legend(area: &Area, report: &Report, contenders: &[&str]) -> Drawn {
    area.draw(&Text::new(report.title.clone(), (10, 6), ("sans-serif", 17)))?;
    let mut left = 10;
    for (who, colour) in contenders.iter().zip(COLOURS.iter().cycle()) {
        area.draw(&Rectangle::new([(left, 32), (left + 12, 44)], colour.filled()))?;
        area.draw(&Text::new((*who).to_owned(), (left + 17, 32), ("sans-serif", 13)))?;
        left += 40 + 8 * who.len() as i32;
    }
    Ok(())
}

fn draw_panel(area: &Area, report: &Report, quantity: &Measurement, contenders: &[&str]) -> Drawn {
    let value =
        |case: &str, who: &str| report.find(case, &quantity.what, who).and_then(|figure| figure.value);
    let cases: Vec<&str> = report
        .cases()
        .into_iter()
        .filter(|case| contenders.iter().any(|who| value(case, who).is_some()))
        .collect();
    let present: Vec<usize> = (0..contenders.len())
        .filter(|number| cases.iter().any(|case| value(case, contenders[*number]).is_some()))
        .collect();
    let highest = cases
        .iter()
        .flat_map(|case| contenders.iter().filter_map(move |who| value(case, who)))
        .fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(quantity.heading(), ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(24)
        .y_label_area_size(44)
        .build_cartesian_2d(
            0.0..cases.len().max(1) as f64,
            0.0..if highest > 0.0 { highest * 1.1 } else { 1.0 },
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    let width = 0.84 / present.len().max(1) as f64;
    for (place, case) in cases.iter().enumerate() {
        let left = place as f64 + 0.08;
        chart.draw_series(present.iter().enumerate().filter_map(|(bar, contender)| {
            let height = value(case, contenders[*contender])?;
            let from = left + bar as f64 * width;
            Some(Rectangle::new(
                [(from, 0.0), (from + width * 0.92, height)],
                COLOURS[contender % COLOURS.len()].filled(),
            ))
        }))?;
        let centre = chart.backend_coord(&(place as f64 + 0.5, 0.0));
        let style = TextStyle::from(("sans-serif", 11)).pos(Pos::new(HPos::Center, VPos::Top));
        let (area_left, area_top) = area.get_base_pixel();
        area.draw_text(case, &style, (centre.0 - area_left, centre.1 - area_top + 6))?;
    }
    Ok(())
}

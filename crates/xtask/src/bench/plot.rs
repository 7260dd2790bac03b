//! The plot of the stalls: strategies one below the other, seconds on a logarithmic axis.
//!
//! A hundred lines of SVG, so that drawing it needs nothing and the file in the repository changes
//! only where a figure does.

use super::{Pull, Row};

const WIDTH: f64 = 760.0;
/// Where the axis begins and ends.
const LEFT: f64 = 270.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 46.0;
const ROW: f64 = 26.0;
/// A kernel's name above its rows.
const HEADING: f64 = 28.0;

/// The axis, in powers of ten of a second.
const FIRST_DECADE: i32 = -1;
const LAST_DECADE: i32 = 2;

const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.title{font-size:14px;font-weight:600}\
    .kernel{font-weight:600}.axis{fill:#57606a}.grid{stroke:#d0d7de}.fine{stroke:#eaeef2}\
    .pull{fill:#cf222e;fill-opacity:.65}.ours{fill:#1a7f37}.cut{fill:#fff;stroke:#cf222e}\
    .median{stroke:#24292f;stroke-width:2}";

pub(super) fn draw(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = TOP;
    let mut kernel = "";
    for row in rows {
        if row.kernel != kernel {
            kernel = &row.kernel;
            y += HEADING;
            body.push_str(&text(16.0, y - 8.0, "kernel", &format!("Linux {kernel}")));
        }
        body.push_str(&line_of(row, y));
        y += ROW;
    }
    let bottom = y + 4.0;
    let height = bottom + 40.0;
    let title = "Longest write of an application after a cable is pulled";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         {}{}{body}</svg>\n",
        text(16.0, 24.0, "title", title),
        axis(bottom),
    )
}

/// Where on the axis so many milliseconds are.
fn x(ms: f64) -> f64 {
    let decades = f64::from(LAST_DECADE - FIRST_DECADE);
    let at = ((ms / 1000.0).log10() - f64::from(FIRST_DECADE)) / decades;
    LEFT + at.clamp(0.0, 1.0) * (RIGHT - LEFT)
}

fn axis(bottom: f64) -> String {
    let mut grid = String::new();
    for decade in FIRST_DECADE..=LAST_DECADE {
        let seconds = 10_f64.powi(decade);
        grid.push_str(&vertical(x(seconds * 1000.0), TOP, bottom, "grid"));
        let label = format!("{seconds} s");
        grid.push_str(&text(x(seconds * 1000.0) - 10.0, bottom + 16.0, "axis", &label));
        for step in 2..10 {
            if decade < LAST_DECADE {
                let ms = seconds * 1000.0 * f64::from(step);
                grid.push_str(&vertical(x(ms), TOP, bottom, "fine"));
            }
        }
    }
    grid.push_str(&text(
        LEFT,
        bottom + 32.0,
        "axis",
        "a dot: one pull · a bar: the median · hollow: still waiting when cut off",
    ));
    grid
}

fn line_of(row: &Row, y: f64) -> String {
    let middle = y + ROW / 2.0;
    let mut line = text(28.0, middle + 4.0, "who", &row.strategy.to_string());
    for pull in &row.pulls {
        line.push_str(&dot(*pull, middle));
    }
    if let Some(median) = row.median() {
        line.push_str(&vertical(x(median.ms), middle - 9.0, middle + 9.0, "median"));
        line.push_str(&text(RIGHT + 8.0, middle + 4.0, "value", &median.shown()));
    }
    line
}

fn dot(pull: Pull, y: f64) -> String {
    let kind = match (pull.cut_off, pull.strategy.is_ours()) {
        (true, _) => " cut",
        (false, true) => " ours",
        (false, false) => "",
    };
    format!("<circle class=\"pull{kind}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\n", x(pull.ms))
}

fn vertical(x: f64, from: f64, to: f64, class: &str) -> String {
    format!(
        "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\"/>\n"
    )
}

fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>\n")
}

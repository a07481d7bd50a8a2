//! Plots as SVG that reads on paper: lines are told apart by their dashes as well as by their colours. Text in, text out.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 44.0;
/// Colour and dashes of the lines, in turn.
const STROKES: [(&str, &str); 6] = [
    ("#1b4f8f", ""),
    ("#b3401f", "7 3"),
    ("#2f7d4f", "2 3"),
    ("#6b3fa0", "9 3 2 3"),
    ("#8a6d00", "4 4"),
    ("#444444", "1 2"),
];

/// How values of an axis are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// Equal steps are equal ratios; values at or below zero are left out.
    Log,
    /// Quantiles: 90 %, 99 %, 99.9 % stand at equal distances.
    Nines,
}

/// An axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) scale: Scale,
}

/// A line, or single points.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) dots: bool,
}

impl Scale {
    /// Where a value is, before it is stretched to the page; `None`: nowhere.
    fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Linear => value,
            Self::Log if value > 0.0 => value.log10(),
            Self::Nines if value < 1.0 => -(1.0 - value).log10(),
            Self::Log | Self::Nines => return None,
        };
        place.is_finite().then_some(place)
    }

    /// The ends of an axis that shows these places.
    fn ends(self, places: impl Iterator<Item = f64>) -> (f64, f64) {
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        if low > high {
            return (0.0, 1.0);
        }
        match self {
            Self::Linear => (low.min(0.0), if high > low.min(0.0) { high } else { low + 1.0 }),
            Self::Log => (low.floor(), high.ceil().max(low.floor() + 1.0)),
            Self::Nines => (0.0, high.max(1.0)),
        }
    }

    /// Places of ticks, and what they say.
    fn ticks(self, (low, high): (f64, f64)) -> Vec<(f64, String)> {
        match self {
            Self::Linear => {
                let step = nice((high - low) / 6.0);
                let first = (low / step).ceil() as i64;
                let at = |n: i64| n as f64 * step;
                (first..)
                    .map(at)
                    .take_while(|at| *at <= high + step * 1e-9)
                    .map(|at| (at, figure(at)))
                    .collect()
            }
            Self::Log => {
                (low as i64..=high as i64).map(|n| (n as f64, figure(10_f64.powi(n as i32)))).collect()
            }
            Self::Nines => {
                let part = |n: i32| 100.0 * (1.0 - 10_f64.powi(-n));
                let said = |n: i32| {
                    if n == 0 {
                        "0 %".to_owned()
                    } else {
                        format!("{:.*} %", (n - 2).max(0) as usize, part(n))
                    }
                };
                (0..=high.floor() as i32).map(|n| (f64::from(n), said(n))).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|nice| *nice >= step * 0.999)
        .unwrap_or(step)
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// What is drawn of each line, and where.
struct Frame<'a> {
    x: (&'a Axis, (f64, f64)),
    y: (&'a Axis, (f64, f64)),
}

impl Frame<'_> {
    fn across(&self, at: f64) -> f64 {
        let (low, high) = self.x.1;
        LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, at: f64) -> f64 {
        let (low, high) = self.y.1;
        HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }

    /// Axes and their ticks.
    fn axes(&self, text: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (at, said) in self.x.0.scale.ticks(self.x.1) {
            let at = self.across(at);
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
            );
            let _ = writeln!(text, "<text class=\"x\" x=\"{at:.1}\" y=\"{}\">{said}</text>", bottom + 14.0);
        }
        for (at, said) in self.y.0.scale.ticks(self.y.1) {
            let at = self.up(at);
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
            let _ =
                writeln!(text, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{said}</text>", LEFT - 6.0, at + 4.0);
        }
        let (centre, middle) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            text,
            "<text class=\"x\" x=\"{centre}\" y=\"{}\">{}</text>",
            HEIGHT - 12.0,
            self.x.0.title
        );
        let turned = format!("transform=\"rotate(-90 14 {middle})\" x=\"14\" y=\"{middle}\"");
        let _ = writeln!(text, "<text class=\"x\" {turned}>{}</text>", self.y.0.title);
    }

    fn line(&self, text: &mut String, line: &Line, points: &[(f64, f64)], (colour, dashes): (&str, &str)) {
        let at = points.iter().map(|(x, y)| (self.across(*x), self.up(*y)));
        if line.dots {
            for (x, y) in at {
                let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
            }
            return;
        }
        let points: Vec<String> = at.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let _ = writeln!(
            text,
            "<polyline points=\"{points}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>"
        );
    }
}

/// The plot. Lines without a point that can be shown are not in its legend.
pub(crate) fn svg(title: &str, (x, y): (&Axis, &Axis), lines: &[Line]) -> String {
    let placed = |line: &Line| -> Vec<(f64, f64)> {
        line.points
            .iter()
            .filter_map(|(at, value)| Some((x.scale.place(*at)?, y.scale.place(*value)?)))
            .collect()
    };
    let placed: Vec<(&Line, Vec<(f64, f64)>)> =
        lines.iter().map(|line| (line, placed(line))).filter(|(_, points)| !points.is_empty()).collect();
    let all = || placed.iter().flat_map(|(_, points)| points.iter().copied());
    let frame =
        Frame { x: (x, x.scale.ends(all().map(|(x, _)| x))), y: (y, y.scale.ends(all().map(|(_, y)| y))) };
    let title = escaped(title);
    let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    let _ = writeln!(text, "<text class=\"title\" x=\"{LEFT}\" y=\"16\">{title}</text>");
    frame.axes(&mut text);
    for (which, ((line, points), stroke)) in placed.iter().zip(STROKES.iter().cycle()).enumerate() {
        frame.line(&mut text, line, points, *stroke);
        let (x, y) = (WIDTH - RIGHT - 150.0, TOP + 12.0 + which as f64 * 15.0);
        let drawn = format!("stroke=\"{}\" stroke-dasharray=\"{}\" stroke-width=\"1.6\"", stroke.0, stroke.1);
        let _ = write!(text, "<line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" {drawn}/>", x + 24.0);
        let _ = writeln!(
            text,
            "<text class=\"legend\" x=\"{}\" y=\"{}\">{}</text>",
            x + 30.0,
            y + 4.0,
            escaped(&line.name)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// As text between tags and in attributes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { name: "a<b".to_owned(), points: points.to_vec(), dots: false }
    }

    #[test]
    fn ticks_stand_where_people_look_for_them() {
        let said = |scale: Scale, ends| {
            scale.ticks(ends).into_iter().map(|(_, said)| said).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said(Scale::Linear, (0.0, 58_000.0)), "0 10k 20k 30k 40k 50k");
        assert_eq!(said(Scale::Log, (2.0, 5.0)), "100 1000 10k 100k");
        assert_eq!(said(Scale::Nines, (0.0, 4.2)), "0 % 90 % 99 % 99.9 % 99.99 %");
        assert_eq!(said(Scale::Linear, (0.0, 0.5)), "0 0.1 0.2 0.3 0.4 0.5");
    }

    #[test]
    fn points_are_within_the_frame_and_names_cannot_leave_the_text() {
        let (x, y) = (Axis { title: "s", scale: Scale::Linear }, Axis { title: "us", scale: Scale::Log });
        let text = svg(
            "t",
            (&x, &y),
            &[line(&[(0.0, 120.0), (1.0, 0.0), (2.0, 90_000.0), (f64::NAN, 1.0)]), line(&[])],
        );
        let points = text.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(points.len(), 2, "{text}");
        assert!(
            points.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (TOP..=HEIGHT).contains(y)),
            "{points:?}"
        );
        assert!(points[0].1 > points[1].1, "more is higher up");
        assert!(text.contains("a&lt;b") && !text.contains("a<b") && !text.contains("NaN"), "{text}");
        // Nothing to show is shown as nothing.
        assert!(svg("t", (&x, &y), &[]).ends_with("</svg>\n"));
    }
}

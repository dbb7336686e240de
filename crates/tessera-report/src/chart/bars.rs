//! Bars from left to right, each with its name and its number.

use maud::{Markup, html};

use super::{Figure, WIDTH};
use crate::numbers::{long, short};
use crate::page::Page;

/// Height of a bar with what is around it.
const ROW: f64 = 34.0;

/// A bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Whether it is the one that the others are there to be compared with.
    pub(crate) is_first: bool,
}

/// Bars that begin at 0; nothing where there are none.
pub(crate) fn bars(page: &Page, title: &str, says: &str, unit: &str, all: &[Bar]) -> Markup {
    let largest =
        all.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if all.is_empty() || largest <= 0.0 {
        return html! {};
    }
    let drawing = html! {
        @for (at, bar) in all.iter().enumerate() {
            @let top = ROW * at as f64;
            @let length = (WIDTH - 70.0) * (bar.value / largest).clamp(0.0, 1.0);
            text class="bar-name" x="2" y=(format!("{:.1}", top + 12.0)) { (bar.name) }
            rect class=(if bar.is_first { "bar s0" } else { "bar rest" }) x="2" rx="1.5" height="12"
                y=(format!("{:.1}", top + 17.0)) width=(format!("{:.1}", length.max(1.0))) {}
            text class="bar-number" x=(format!("{:.1}", length + 8.0)) y=(format!("{:.1}", top + 27.0)) { (short(bar.value)) }
        }
    };
    let description: Vec<String> =
        all.iter().map(|bar| format!("{}: {} {unit}", bar.name, short(bar.value))).collect();
    let table = html! {
        table {
            thead { tr { th scope="col" { "Name" } th scope="col" { (if unit.is_empty() { "value" } else { unit }) } } }
            tbody { @for bar in all { tr { th scope="row" { (bar.name) } td { (long(bar.value)) } } } }
        }
    };
    let description = description.join("; ");
    let height = ROW * all.len() as f64 + 2.0;
    Figure { title, says, description: &description, height, drawing, table }.draw(page)
}

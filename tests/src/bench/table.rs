//! How a benchmark prints: one Markdown table, ready for docs/benchmarks.md, and one `RATIO` line.

/// Rounds of each side, alternated.
pub const ROUNDS: usize = 3;

/// The least, the middle and the greatest of some rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The least.
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self { min: figures[0], median: figures[figures.len() / 2], max: figures[figures.len() - 1] }
    }

    /// One row of a table.
    pub fn row(&self, name: &str, decimals: usize) {
        println!(
            "| {name} | {:.decimals$} | {:.decimals$} | {:.decimals$} |",
            self.min, self.median, self.max
        );
    }
}

/// The head of a table of [`Spread::row`]s, under one line of what is measured.
pub fn head(what: &str, unit: &str) {
    println!("\n{what}\n\n| | {unit} min | median | max |\n|---|---|---|---|");
}

/// The line that ends a benchmark; `target` is what it is meant to be.
pub fn ratio(name: &str, ratio: f64, target: &str) {
    println!("\nRATIO {name} {ratio:.2} (target: {target})");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_its_figures() {
        let spread = Spread::of(vec![9.0, 1.0, 5.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 5.0, 9.0));
    }
}

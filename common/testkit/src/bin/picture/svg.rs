//! Renders the text of a terminal, with its colours, as SVG.

use std::fmt::Write;

/// Pixels of one character, of a line, and around the text.
const CHARACTER_WIDTH: f64 = 8.0;
const LINE_HEIGHT: f64 = 18.0;
const MARGIN: f64 = 16.0;
/// From the top of a line to the base of its letters.
const ASCENT: f64 = 13.5;
const BACKGROUND: &str = "#0d1117";
const FOREGROUND: &str = "#e6edf3";
/// Colours 30 to 37 of a terminal.
const COLOURS: [&str; 8] =
    ["#6e7681", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#e6edf3"];
/// Characters that are drawn as a filled box, so that bars have no seams.
const BLOCK: char = '█';

/// One character of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TerminalCell {
    character: char,
    colour: &'static str,
}

/// Renders the text; longer lines are cut and end with an ellipsis.
pub(crate) fn render(text: &str, columns: usize) -> String {
    let lines: Vec<Vec<TerminalCell>> =
        parse(text).into_iter().map(|line| cut(line, columns)).collect();
    let width = columns as f64 * CHARACTER_WIDTH + 2.0 * MARGIN;
    let height = lines.len() as f64 * LINE_HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-size=\"13\" \
         font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', \
         monospace\">\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" \
         fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let top = MARGIN + row as f64 * LINE_HEIGHT;
        for (column, word) in words(line) {
            draw(&mut svg, top, column, word);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, top: f64, column: usize, word: &[TerminalCell]) {
    let Some(first) = word.first() else { return };
    let x = MARGIN + column as f64 * CHARACTER_WIDTH;
    let (width, colour) = (word.len() as f64 * CHARACTER_WIDTH, first.colour);
    // Writing to a String can't fail.
    let _ = if first.character == BLOCK {
        let y = top + 3.0;
        writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"12\" fill=\"{colour}\"/>"
        )
    } else {
        let text: String = word.iter().map(|cell| escaped(cell.character)).collect();
        // The length keeps columns aligned in whatever font is there.
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" \
             fill=\"{colour}\">{text}</text>",
            top + ASCENT
        )
    };
}

/// Lines of cells, without escape sequences.
fn parse(text: &str) -> Vec<Vec<TerminalCell>> {
    let mut colour = FOREGROUND;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut cells = Vec::new();
        let mut rest = line.chars();
        while let Some(character) = rest.next() {
            if character != '\x1b' {
                cells.push(TerminalCell { character, colour });
                continue;
            }
            let sequence: String = rest.by_ref().take_while(|next| *next != 'm').collect();
            colour = match sequence.trim_start_matches('[').parse() {
                Ok(code @ 30..=37) => COLOURS[code - 30],
                _ => FOREGROUND,
            };
        }
        lines.push(cells);
    }
    lines
}

fn cut(mut line: Vec<TerminalCell>, columns: usize) -> Vec<TerminalCell> {
    if line.len() > columns {
        line.truncate(columns.saturating_sub(1));
        line.push(TerminalCell { character: '…', colour: FOREGROUND });
    }
    line
}

/// The words of a line with their columns: each of one colour, and of blocks or
/// of letters alone. Each word has its own place, so that columns stay aligned.
fn words(line: &[TerminalCell]) -> Vec<(usize, &[TerminalCell])> {
    let belong = |first: &TerminalCell, second: &TerminalCell| {
        first.colour == second.colour
            && (first.character == ' ') == (second.character == ' ')
            && (first.character == BLOCK) == (second.character == BLOCK)
    };
    let mut column = 0;
    let mut words = Vec::new();
    for word in line.chunk_by(belong) {
        if word.iter().any(|cell| cell.character != ' ') {
            words.push((column, word));
        }
        column += word.len();
    }
    words
}

fn escaped(character: char) -> String {
    match character {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_one_colour_and_its_own_column() {
        let lines = parse("a b  \x1b[33m██\x1b[0m <c>");
        let found: Vec<(usize, String, &str)> = words(&lines[0])
            .into_iter()
            .map(|(column, word)| {
                (column, word.iter().map(|cell| cell.character).collect(), word[0].colour)
            })
            .collect();
        let expected = [
            (0, "a", FOREGROUND),
            (2, "b", FOREGROUND),
            (5, "██", COLOURS[3]),
            (8, "<c>", FOREGROUND),
        ]
        .map(|(column, text, colour)| (column, text.to_owned(), colour));
        assert_eq!(found, expected);
    }

    #[test]
    fn text_is_escaped_and_long_lines_are_cut() {
        let svg = render("a<b>&\nlonger than ten", 10);
        assert!(svg.contains(">a&lt;b&gt;&amp;</text>"), "{svg}");
        assert!(svg.contains(">longer</text>") && svg.contains(">th…</text>"), "{svg}");
        assert_eq!(svg.matches("<text ").count(), 3);
    }
}

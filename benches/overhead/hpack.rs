//! Enough HPACK to send the same few fields again and again, as a real client does: in full the first time, as an index
//! into the table that both ends keep from then on.

/// The table stays far below the 4096 bytes that every peer has until it says otherwise.
const STATIC_ENTRIES: usize = 61;

/// Fields of RFC 7541 appendix A that are sent here whole.
const STATIC: [(&str, &str, u8); 5] = [
    (":method", "GET", 2),
    (":method", "POST", 3),
    (":scheme", "http", 6),
    (":status", "200", 8),
    (":path", "/", 4),
];

#[derive(Default)]
pub struct Encoder {
    /// Oldest first.
    known: Vec<(&'static str, &'static str)>,
    table: Table,
}

/// Whether the other end keeps a table (nginx keeps none of what an upstream sends).
#[derive(Default)]
enum Table {
    #[default]
    Kept,
    /// Given up, which the next block has to say.
    GivenUp,
    None,
}

impl Encoder {
    /// The other end has asked for a table of no size.
    pub fn give_up_table(&mut self) {
        self.known.clear();
        self.table = Table::GivenUp;
    }

    pub fn encode(&mut self, fields: &[(&'static str, &'static str)], block: &mut Vec<u8>) {
        if matches!(self.table, Table::GivenUp) {
            block.push(0x20); // the size of the table is 0
            self.table = Table::None;
        }
        for field in fields {
            self.encode_one(*field, block);
        }
    }

    fn encode_one(&mut self, field: (&'static str, &'static str), block: &mut Vec<u8>) {
        let whole = STATIC.iter().find(|entry| (entry.0, entry.1) == field);
        if let Some((_, _, index)) = whole {
            block.push(0x80 | index);
            return;
        }
        if let Some(place) = self.known.iter().position(|known| *known == field) {
            let index = STATIC_ENTRIES + self.known.len() - place;
            block.push(0x80 | u8::try_from(index).expect("a handful of fields"));
            return;
        }
        match self.table {
            Table::Kept => {
                self.known.push(field);
                block.push(0x40); // a new name, to be remembered
            }
            Table::GivenUp | Table::None => block.push(0), // a new name, to be forgotten
        }
        string(field.0, block);
        string(field.1, block);
    }
}

fn string(text: &str, block: &mut Vec<u8>) {
    // A length below 127 is one byte; the top bit says that it is not Huffman-coded.
    block.push(u8::try_from(text.len()).expect("short strings only"));
    assert!(text.len() < 127, "short strings only");
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_sent_in_full_once_and_by_its_place_in_the_table_later() {
        let mut encoder = Encoder::default();
        let mut block = Vec::new();
        encoder.encode(&[(":status", "200"), ("a", "b")], &mut block);
        assert_eq!(block, [0x88, 0x40, 1, b'a', 1, b'b']);
        block.clear();
        encoder.encode(&[("a", "b"), ("c", "d")], &mut block);
        assert_eq!(block, [0x80 | 62, 0x40, 1, b'c', 1, b'd']);
        block.clear();
        // The newest entry has the lowest index.
        encoder.encode(&[("a", "b"), ("c", "d")], &mut block);
        assert_eq!(block, [0x80 | 63, 0x80 | 62]);
    }

    #[test]
    fn a_peer_without_a_table_gets_everything_in_full_and_is_told_once() {
        let mut encoder = Encoder::default();
        let mut block = Vec::new();
        encoder.give_up_table();
        encoder.encode(&[("a", "b")], &mut block);
        encoder.encode(&[("a", "b")], &mut block);
        assert_eq!(block, [0x20, 0, 1, b'a', 1, b'b', 0, 1, b'a', 1, b'b']);
    }
}

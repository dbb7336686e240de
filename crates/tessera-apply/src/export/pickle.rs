//! Tensors as `torch.save` writes them: a zip file whose members are stored as they are, with a pickle of where each tensor
//! lies.
//!
//! The pickle is of protocol 2 and names three functions, all of which `torch.load(path, weights_only=True)` knows:
//! `torch._utils._rebuild_tensor_v2`, `torch.FloatStorage` and `collections.OrderedDict`. Nothing in it hangs on the day or
//! the machine, so the same tensors are the same bytes. Nothing is read here: what others pickled is a program.

use tch::{Device, Kind};

use super::weights::Named;

/// Where values of a member begin, so that readers may map them into memory: a multiple of this, as PyTorch has it.
const ALIGNMENT: usize = 64;
/// Sizes and places in a zip file have 32 bits, but for an extension of the format that is not written here.
const MOST_BYTES: usize = u32::MAX as usize - 1;
/// The number of its members has 16.
const MOST_MEMBERS: usize = u16::MAX as usize - 1;

/// The bytes of `{key: {name: float32 tensor, ..}}`.
///
/// # Errors
///
/// That they would be more than a zip file of this kind holds.
pub(super) fn to_bytes(key: &str, named: &Named) -> Result<Vec<u8>, String> {
    let mut zip = Zip::default();
    zip.member("archive/data.pkl", &pickle(key, named));
    zip.member("archive/byteorder", b"little");
    for (number, tensor) in named.values().enumerate() {
        let plain = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let bytes = Vec::<u8>::try_from(plain.reshape([-1]).view_dtype(Kind::Uint8));
        zip.member(&format!("archive/data/{number}"), &bytes.expect("bytes are bytes"));
    }
    zip.member("archive/version", b"3\n");
    zip.finish()
}

/// `data.pkl`: tensor i lies in storage i.
fn pickle(key: &str, named: &Named) -> Vec<u8> {
    let mut out = Pickle(vec![0x80, 2]);
    out.op(b'}');
    out.op(b'(');
    out.text(key);
    out.op(b'}');
    out.op(b'(');
    for (number, (name, tensor)) in named.iter().enumerate() {
        let shape = tensor.size();
        out.text(name);
        out.global("torch._utils", "_rebuild_tensor_v2");
        out.op(b'(');
        // The storage, which is said by an id: its kind, its number, where it was, and how many values it has.
        out.op(b'(');
        out.text("storage");
        out.global("torch", "FloatStorage");
        out.text(&number.to_string());
        out.text("cpu");
        out.int(shape.iter().product());
        out.op(b't');
        out.op(b'Q');
        out.int(0);
        out.ints(&shape);
        out.ints(&strides(&shape));
        // No gradient is wanted, and there are no hooks.
        out.op(0x89);
        out.global("collections", "OrderedDict");
        out.op(b')');
        out.op(b'R');
        out.op(b't');
        out.op(b'R');
    }
    out.op(b'u');
    out.op(b'u');
    out.op(b'.');
    out.0
}

/// Values from one place to the next along each axis, where the last is the fastest.
fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Instructions of a pickle.
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, op: u8) {
        self.0.push(op);
    }

    fn text(&mut self, text: &str) {
        self.op(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.op(b'c');
        self.0.extend(format!("{module}\n{name}\n").as_bytes());
    }

    /// A whole number in as many bytes as it needs.
    fn int(&mut self, value: i64) {
        if let Ok(value) = i32::try_from(value) {
            self.op(b'J');
            self.0.extend(value.to_le_bytes());
        } else {
            self.0.extend([0x8a, 8]);
            self.0.extend(value.to_le_bytes());
        }
    }

    /// A tuple of them.
    fn ints(&mut self, values: &[i64]) {
        self.op(b'(');
        for &value in values {
            self.int(value);
        }
        self.op(b't');
    }
}

/// A zip file without compression.
#[derive(Default)]
struct Zip {
    members: Vec<u8>,
    directory: Vec<u8>,
    num_members: usize,
}

impl Zip {
    fn member(&mut self, name: &str, bytes: &[u8]) {
        let start = self.members.len();
        // Name and padding stand between the 30 bytes of the header and the values; a field of padding has 4 bytes of its own.
        let unpadded = start + 30 + name.len() + 4;
        let padding = vec![b'Z'; unpadded.next_multiple_of(ALIGNMENT) - unpadded];
        let about = self.about(name, bytes);
        self.members.extend(b"PK\x03\x04");
        self.members.extend(&about);
        self.members.extend((4 + padding.len() as u16).to_le_bytes());
        self.members.extend(name.as_bytes());
        self.members.extend(b"FB");
        self.members.extend((padding.len() as u16).to_le_bytes());
        self.members.extend(padding);
        self.members.extend(bytes);
        self.directory.extend(b"PK\x01\x02\0\0");
        self.directory.extend(&about);
        // No field, no comment, the first disk, no attributes.
        self.directory.extend([0; 12]);
        self.directory.extend((start as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.num_members += 1;
    }

    /// What header and directory both say of a member, up to the length of its name: neither compression nor a date.
    fn about(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut about = vec![0; 10];
        about.extend(crc32fast::hash(bytes).to_le_bytes());
        about.extend((bytes.len() as u32).to_le_bytes());
        about.extend((bytes.len() as u32).to_le_bytes());
        about.extend((name.len() as u16).to_le_bytes());
        about
    }

    /// The file, with its directory behind its members.
    fn finish(self) -> Result<Vec<u8>, String> {
        let Self { members, directory, num_members } = self;
        let len = members.len() + directory.len();
        if len > MOST_BYTES || num_members > MOST_MEMBERS {
            return Err(format!(
                "a file of torch.save has at most {MOST_BYTES} bytes and {MOST_MEMBERS} members here, this one would \
                 have {len} and {num_members}"
            ));
        }
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend([(num_members as u16).to_le_bytes(); 2].concat());
        end.extend((directory.len() as u32).to_le_bytes());
        end.extend((members.len() as u32).to_le_bytes());
        end.extend([0, 0]);
        Ok([members, directory, end].concat())
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn one() -> Named {
        Named::from([(
            "w".to_owned(),
            Tensor::from_slice(&[1.0f32, -2.0, 0.5, 3.0, 4.0, 5.0]).view([2, 3]),
        )])
    }

    /// By hand, of the instructions of Python's `pickletools`: an empty dictionary, a mark, a key of one letter, and so on.
    #[test]
    fn a_pickle_says_where_each_tensor_lies() {
        let expected: Vec<&[u8]> = vec![
            b"\x80\x02}(X\x01\0\0\0m}(X\x01\0\0\0w",
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\x06\0\0\0tQ",
            b"J\0\0\0\0(J\x02\0\0\0J\x03\0\0\0t(J\x03\0\0\0J\x01\0\0\0t",
            b"\x89ccollections\nOrderedDict\n)RtRuu.",
        ];
        assert_eq!(pickle("m", &one()), expected.concat());
    }

    /// What a reader does: from the end of the file to its directory, and from there to each member.
    #[test]
    fn members_lie_where_the_directory_says_and_begin_at_multiples_of_64() {
        let bytes = to_bytes("m", &one()).unwrap();
        assert_eq!(to_bytes("m", &one()).unwrap(), bytes, "the same bytes each time");
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize;
        let long = |at: usize| word(at) + (word(at + 2) << 16);
        let end = bytes.len() - 22;
        assert_eq!((&bytes[end..end + 4], word(end + 10)), (&b"PK\x05\x06"[..], 4));
        let (mut at, mut found) = (long(end + 16), Vec::new());
        assert_eq!(at + long(end + 12), end);
        for _ in 0..word(end + 10) {
            assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
            let (sum, size, name, start) =
                (long(at + 16), long(at + 24), word(at + 28), long(at + 42));
            assert_eq!(&bytes[start..start + 4], b"PK\x03\x04");
            assert_eq!([word(start + 26), long(start + 22)], [name, size]);
            let values = start + 30 + name + word(start + 28);
            assert_eq!(values % 64, 0);
            let content = &bytes[values..values + size];
            assert_eq!(crc32fast::hash(content) as usize, sum);
            found.push((String::from_utf8_lossy(&bytes[at + 46..at + 46 + name]), content));
            at += 46 + name;
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_ref()).collect();
        let wanted = ["data.pkl", "byteorder", "data/0", "version"];
        assert_eq!(names, wanted.map(|name| format!("archive/{name}")));
        assert_eq!(found[2].1[4..8], (-2.0f32).to_le_bytes());
    }
}

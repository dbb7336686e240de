//! A network as an ONNX file: operators of opset 17, which the most runtimes have, of any batch and size.

mod attention;
mod operators;
mod proto;

use prost::Message;
use tch::{Kind, Tensor};
use tessera_nn::graph::{Graph, Value};

use self::proto::{
    Attribute, Constant, Dim, Entry, Info, Model, Node, Opset, Shape, Size, TensorKind,
};

/// The newest version of the format that readers of opset 17 take.
const IR_VERSION: i64 = 8;
/// Version of the operators.
const OPSET: i64 = 17;
/// A message of protobuf ends here.
const MOST_BYTES: usize = (1 << 31) - 1;

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const DOUBLE: i32 = 11;

/// What goes in, or comes out: its name, whether it is whole numbers, and its axes.
pub(super) struct End {
    pub(super) name: String,
    pub(super) is_whole: bool,
    pub(super) axes: Vec<Axis>,
}

/// An axis of it.
#[derive(Clone)]
pub(super) enum Axis {
    Size(i64),
    /// Of any size; axes of one name are alike.
    Any(String),
}

/// The bytes of a file that computes `graph` from `inputs` to `outputs`.
pub(super) fn to_bytes(
    graph: &Graph,
    [inputs, outputs]: [&[End]; 2],
    said: &[(&str, String)],
) -> Result<Vec<u8>, String> {
    let mut writer = Writer::default();
    let mut names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    for node in &graph.nodes {
        let of: Vec<&str> =
            node.inputs.iter().map(|&Value(number)| names[number].as_str()).collect();
        let made = Value(names.len());
        let name = match graph.outputs.iter().position(|&output| output == made) {
            Some(output) => outputs[output].name.clone(),
            None => format!("value_{}", made.0),
        };
        writer.write(node, &of, &name);
        names.push(name);
    }
    let graph = proto::Graph {
        nodes: writer.nodes,
        name: "tessera".to_owned(),
        constants: writer.constants,
        inputs: inputs.iter().map(info).collect(),
        outputs: outputs.iter().map(info).collect(),
    };
    let entry =
        |(key, value): &(&str, String)| Entry { key: (*key).to_owned(), value: value.clone() };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "tessera".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc: String::new(),
        graph: Some(graph),
        opsets: vec![Opset { domain: String::new(), version: OPSET }],
        metadata: said.iter().map(entry).collect(),
    };
    let len = model.encoded_len();
    if len > MOST_BYTES {
        return Err(format!(
            "an ONNX file has at most {MOST_BYTES} bytes, this one would have {len}"
        ));
    }
    Ok(model.encode_to_vec())
}

fn info(end: &End) -> Info {
    let dim = |axis: &Axis| {
        let size = match axis {
            Axis::Size(size) => Size::Number(*size),
            Axis::Any(name) => Size::Any(name.clone()),
        };
        Dim { size: Some(size) }
    };
    let shape = Shape { dims: end.axes.iter().map(dim).collect() };
    let element = if end.is_whole { INT64 } else { FLOAT };
    let tensor = TensorKind { element, shape: Some(shape) };
    Info { name: end.name.clone(), kind: Some(proto::Kind { tensor: Some(tensor) }) }
}

/// Operators and constants that have been written so far.
#[derive(Default)]
struct Writer {
    nodes: Vec<Node>,
    constants: Vec<Constant>,
}

impl Writer {
    /// An operator whose output has a name of its own.
    fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let output = format!("inner_{}", self.nodes.len());
        self.named(op, inputs, attributes, &output);
        output
    }

    /// An operator whose output has this name.
    fn named(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>, output: &str) {
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        let name = format!("{}_{}", op.to_lowercase(), self.nodes.len());
        let (op, outputs) = (op.to_owned(), vec![output.to_owned()]);
        self.nodes.push(Node { inputs, outputs, name, op, attributes });
    }

    /// A constant of float32.
    fn floats(&mut self, tensor: &Tensor) -> String {
        let plain = tensor.to_kind(Kind::Float).contiguous();
        let bytes = Vec::try_from(plain.reshape([-1]).view_dtype(Kind::Uint8));
        self.constant(plain.size(), FLOAT, bytes.expect("bytes are bytes"))
    }

    /// A constant of float64.
    fn doubles(&mut self, tensor: &Tensor) -> String {
        let plain = tensor.to_kind(Kind::Double).contiguous();
        let bytes = Vec::try_from(plain.reshape([-1]).view_dtype(Kind::Uint8));
        self.constant(plain.size(), DOUBLE, bytes.expect("bytes are bytes"))
    }

    /// A constant of one number.
    fn float(&mut self, value: f64) -> String {
        self.constant(Vec::new(), FLOAT, (value as f32).to_le_bytes().to_vec())
    }

    /// A constant of one whole number.
    fn int(&mut self, value: i64) -> String {
        self.constant(Vec::new(), INT64, value.to_le_bytes().to_vec())
    }

    /// A constant of whole numbers, `[len]`.
    fn ints(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(vec![values.len() as i64], INT64, raw)
    }

    fn constant(&mut self, dims: Vec<i64>, kind: i32, raw: Vec<u8>) -> String {
        let name = format!("constant_{}", self.constants.len());
        self.constants.push(Constant { dims, kind, name: name.clone(), raw });
        name
    }
}

fn int(name: &str, int: i64) -> Attribute {
    Attribute { name: name.to_owned(), int, kind: 2, ..Attribute::default() }
}

fn float(name: &str, float: f64) -> Attribute {
    Attribute { name: name.to_owned(), float: float as f32, kind: 1, ..Attribute::default() }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.to_owned(), ints: ints.to_vec(), kind: 7, ..Attribute::default() }
}

fn word(name: &str, word: &str) -> Attribute {
    let word = word.as_bytes().to_vec();
    Attribute { name: name.to_owned(), word, kind: 3, ..Attribute::default() }
}

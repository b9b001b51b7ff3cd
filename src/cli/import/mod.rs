mod mark;
mod parse;

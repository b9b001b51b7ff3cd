//! x
#![allow(dead_code)]
mod answer;
mod import;
mod names;
mod operation;
mod text;

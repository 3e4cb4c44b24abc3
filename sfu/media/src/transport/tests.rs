mod adversary;
mod channels;
mod lifecycle;
mod pair;

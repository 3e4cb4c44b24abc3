mod adversary;
mod channels;
mod lifecycle;
mod openssl;
mod pair;

-- Keeps the number: the branch that owns it replaces this file.
-- phase: expand
select 1;

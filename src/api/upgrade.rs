//! `NodeOpUpgrade`: upgrade Kairos on chosen nodes. It makes a NodeOp of its own name and shows that one's status.

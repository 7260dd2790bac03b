use super::*;

fn deployment() -> Deployment {
    serde_json::from_value(json!({
        "metadata": {
            "name": "rook-ceph-osd-3",
            "resourceVersion": "41",
            "labels": { "app": "rook-ceph-osd", "ceph-osd-id": "3", "portable": "false" },
        },
        "spec": {
            "replicas": 1,
            "selector": {},
            "template": { "spec": {
                "nodeSelector": { "kubernetes.io/hostname": "n1" },
                "initContainers": [{ "name": "activate", "env": [
                    { "name": "ROOK_NODE_NAME", "value": "n1" },
                ] }],
                "containers": [
                    { "name": "log-collector",
                      "resources": { "requests": { "cpu": "100m", "memory": "100Mi" } } },
                    { "name": "osd",
                      "args": ["--crush-location=root=default host=fabric-a"],
                      "resources": { "requests": { "cpu": "1", "memory": "4Gi" } },
                      "env": [
                        { "name": "ROOK_OSD_UUID", "value": "0f7e4d5a-1111-4222-8333-444455550003" },
                        { "name": "NODE_NAME", "valueFrom": { "fieldRef": {
                            "fieldPath": "spec.nodeName" } } },
                        { "name": "ROOK_NODE_NAME", "value": "n1" },
                      ] },
                ],
            } },
        },
    }))
    .unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn device(n: u32) -> Device {
    Device {
        subsystem: format!("nqn.2026-01.org.example:osd-{n}").parse().unwrap(),
        namespace: format!("uuid.0f7e4d5a-1111-4222-8333-44445555{n:04}").parse().unwrap(),
    }
}

/// Applies a patch as an API server does; `None` when a test fails.
fn applied(object: &Value, patch: Value) -> Option<Value> {
    let mut object = object.clone();
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    json_patch::patch(&mut object, &patch).ok()?;
    Some(object)
}

fn changed(before: &Deployment, what: &Change) -> Deployment {
    let patch = change(before, what).unwrap();
    let object = serde_json::to_value(before).unwrap();
    serde_json::from_value(applied(&object, patch).unwrap()).unwrap()
}

#[test]
fn a_deployment_of_rooks_is_read() {
    let read = OsdDeployment::read(&deployment()).unwrap();
    assert_eq!(read.id.number(), 3);
    assert_eq!(read.node, node("n1"));
    assert_eq!(read.requests, Resources { cpu_milli: 1100, memory: (4 << 30) + (100 << 20) });
    assert_eq!((read.generation, read.mark, read.moved), (Generation(0), None, None));
    assert!(!read.portable);
}

#[test]
fn a_move_binds_the_pod_and_leaves_its_place_in_crush() {
    let at = WallTime(1_800_000_000_000);
    let what = Change {
        mark: Some(Some(Generation(7))),
        generation: Some(Generation(7)),
        replicas: Some(1),
        node: Some((node("n2"), at)),
    };
    let after = changed(&deployment(), &what);
    let read = OsdDeployment::read(&after).unwrap();
    assert_eq!(read.node, node("n2"));
    assert_eq!((read.generation, read.mark), (Generation(7), Some(Generation(7))));
    assert_eq!(read.moved, Some(at));
    let text = serde_json::to_string(&after.spec).unwrap();
    assert!(!text.contains("\"n1\""), "{text}");
    let pod = |it: &Deployment| it.spec.clone().unwrap().template.spec.unwrap().containers;
    assert_eq!(pod(&after)[1].args, pod(&deployment())[1].args);
}

#[test]
fn what_is_taken_off_leaves_no_trace_but_the_token() {
    let marked =
        changed(&deployment(), &Change { mark: Some(Some(Generation(7))), ..Change::default() });
    assert_eq!(marked.metadata.labels.as_ref().unwrap()[KEEP_OFF], "true");
    let free = changed(&marked, &Change { mark: Some(None), ..Change::default() });
    assert_eq!(free.metadata.labels, deployment().metadata.labels);
    assert_eq!(OsdDeployment::read(&free).unwrap(), OsdDeployment::read(&deployment()).unwrap());
}

#[test]
fn a_mark_that_a_person_set_is_not_ours() {
    let mut kept_off = deployment();
    kept_off.metadata.labels.as_mut().unwrap().insert(KEEP_OFF.into(), "true".into());
    assert_eq!(OsdDeployment::read(&kept_off).unwrap().mark, None);
}

#[test]
fn a_change_made_from_an_old_copy_is_refused() {
    let patch = change(&deployment(), &Change { replicas: Some(0), ..Change::default() }).unwrap();
    let mut newer = deployment();
    newer.metadata.resource_version = Some("42".into());
    assert_eq!(applied(&serde_json::to_value(&newer).unwrap(), patch), None);
}

#[test]
fn quantities_are_read_as_kubernetes_writes_them() {
    for (text, thousandth) in [
        ("500m", 500),
        ("2", 2000),
        ("1.5", 1500),
        ("0.25", 250),
        ("4Ki", 4_096_000),
        ("2k", 2_000_000),
        ("2e3", 2_000_000),
    ] {
        assert_eq!(thousandths(text), Some(thousandth), "{text}");
    }
    for text in ["", "m", "-1", "1.x", "Gi", "1e99"] {
        assert_eq!(thousandths(text), None, "{text}");
    }
}

fn cluster() -> Value {
    let entry = |n: u32| json!({ "name": format!("/dev/disk/by-id/{}", link(&device(n))) });
    json!({ "spec": { "storage": { "useAllNodes": false, "nodes": [
        { "name": "n0", "devices": [entry(0)] },
        { "name": "n1", "devices": [entry(1), entry(3)], "config": { "osdsPerDevice": "1" } },
        { "name": "n2", "devices": [entry(2)] },
    ] } } })
}

fn devices(cluster: &Value, n: usize) -> usize {
    cluster["spec"]["storage"]["nodes"][n]["devices"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_device_changes_its_node_and_everything_else_stays() {
    let before = cluster();
    let patch = move_device(&before, &device(3), &node("n1"), &node("n2")).unwrap();
    let after = applied(&before, patch).unwrap();
    assert_eq!([0, 1, 2].map(|n| devices(&after, n)), [1, 1, 2]);
    assert_eq!(move_device(&after, &device(3), &node("n1"), &node("n2")), None, "already so");
}

#[test]
fn a_node_that_is_not_listed_is_added_for_the_device() {
    let before = cluster();
    let patch = move_device(&before, &device(3), &node("n1"), &node("n9")).unwrap();
    let after = applied(&before, patch).unwrap();
    assert_eq!(after["spec"]["storage"]["nodes"][3]["name"], "n9");
    assert_eq!(devices(&after, 3), 1);
}

#[test]
fn an_edit_by_somebody_else_is_kept_or_the_patch_is_refused() {
    let before = cluster();
    let patch = move_device(&before, &device(3), &node("n1"), &node("n2")).unwrap();
    let mut beside = before.clone();
    beside["spec"]["storage"]["nodes"][0]["devices"] = json!([]);
    let merged = applied(&beside, patch.clone()).unwrap();
    assert_eq!([0, 1, 2].map(|n| devices(&merged, n)), [0, 1, 2]);
    let mut shifted = before.clone();
    shifted["spec"]["storage"]["nodes"].as_array_mut().unwrap().remove(0);
    assert_eq!(applied(&shifted, patch.clone()), None, "the nodes are others");
    let mut gone = before;
    gone["spec"]["storage"]["nodes"][1]["devices"].as_array_mut().unwrap().remove(0);
    assert_eq!(applied(&gone, patch), None, "the device is another");
}

#[test]
fn a_cluster_that_uses_all_nodes_lists_none() {
    let mut cluster = cluster();
    cluster["spec"]["storage"]["useAllNodes"] = json!(true);
    assert_eq!(move_device(&cluster, &device(3), &node("n1"), &node("n2")), None);
}

//! Objects of namespace boutique, in YAML.

pub fn policy(service: &str, deadline: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {service}, namespace: boutique}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: {service}}}]\n  outbound: {{deadline: {deadline}}}\n---\n"
    )
}

pub fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: grpc, port: 3550}}]}}\n---\n"
    )
}

pub fn pod(name: &str, ip: &str) -> String {
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: boutique, labels: {{app: {app}}}}}\n\
         spec: {{serviceAccountName: {app}, containers: [{{name: {app}}}], initContainers: [{{name: weir-proxy, env: [{{name: WEIR_POD_NAME}}]}}]}}\n\
         status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
    )
}

pub fn slice(service: &str, endpoints: &[(&str, &str)]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(ip, pod)| format!("{{addresses: [{ip}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}}}}}"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: boutique, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: grpc, port: 3550, protocol: TCP}}]\nendpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}
